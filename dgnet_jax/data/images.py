"""Pictures as arrays: read, resize, check, normalise. No TensorFlow here."""

from collections.abc import Callable, Sequence
import concurrent.futures
import time
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from dgnet_jax.config import UserError
from dgnet_jax.data.index import DatasetIndex, name_some
from dgnet_jax.progress import Progress

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
FORMATS = ('JPEG', 'PNG')  # what every loader reads alike
MODES = ('RGB', 'L', 'RGBA', 'P')  # 8 bits per channel; the others would be converted silently and wrongly
PROGRESS_SECONDS = 5.0  # between two progress lines

T = TypeVar('T')
Log = Callable[[str], None]


def _open_rgb(path: str) -> Image.Image:
  """Decodes a whole file.

  Raises:
    UserError: names the file and what is wrong with it.
  """
  try:
    with Image.open(path, formats=FORMATS) as image:
      if image.mode not in MODES:
        raise UserError(f'{path}: colour mode {image.mode}, save it as 8-bit RGB')
      return image.convert('RGB')
  except Image.UnidentifiedImageError:
    raise UserError(f'{path}: not a readable {" or ".join(FORMATS)} picture') from None
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    # A damaged PNG raises SyntaxError.
    raise UserError(f'{path}: unreadable ({str(error).removesuffix(repr(path)).strip()})') from error


def read_image(path: str, image_size_hw: tuple[int, int]) -> np.ndarray:
  """Reads a picture and resizes it as the release does: bicubic, antialiased when it shrinks.

  Args:
    path: a JPEG or PNG file.
    image_size_hw: height and width to resize to, pixels.

  Returns:
    u8[H, W, 3], RGB.

  Raises:
    UserError: the file is missing, unreadable or truncated; names it.
  """
  height, width = image_size_hw
  return np.asarray(_open_rgb(path).resize((width, height), Image.Resampling.BICUBIC))


def normalize(pixels: Any) -> Any:
  """Pixels u8[..., 3] to f32[..., 3] with ImageNet's mean 0 and deviation 1; for numpy and JAX arrays."""
  mean, std = IMAGENET_MEAN.astype(np.float32), IMAGENET_STD.astype(np.float32)
  return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def denormalize(image: Any, *, truncate: bool = False) -> Any:
  """Back from normalised f[..., 3] to pixels u8[..., 3], clipped to 0..255; for numpy and JAX arrays.

  Args:
    image: normalised, not NaN.
    truncate: cut off the fraction as the release does, which darkens a quarter of the pixels by one (fact 40), instead
      of rounding.
  """
  xp = image.__array_namespace__()
  pixels = xp.clip((image * IMAGENET_STD + IMAGENET_MEAN) * 255, 0, 255)
  return (xp.trunc(pixels) if truncate else xp.round(pixels)).astype(np.uint8)


def for_each_file(function: Callable[[int], T], paths: Sequence[str], *, threads: int, what: str, log: Log) -> None:
  """Runs `function(i)` for the i-th path in threads, with a progress line now and then.

  Args:
    function: raises UserError for a file that is no good.
    paths: of the files.
    threads: at a time.
    what: what is being done, for the progress line.
    log: takes the progress lines.

  Raises:
    UserError: the files that are no good, the first few named, once all were seen.
  """
  problems: list[str] = []

  def attempt(i: int) -> None:
    try:
      function(i)
    except UserError as error:
      problems.append(str(error))

  progress, last = Progress(len(paths), unit='pictures'), time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    try:
      for done, _ in enumerate(pool.map(attempt, range(len(paths))), 1):
        if time.monotonic() - last > PROGRESS_SECONDS:
          log(f'{what} {progress.line(done)}')
          last = time.monotonic()
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C: do not work off what waits
      raise
  if problems:
    named = name_some(sorted(problems), separator='\n  ')
    raise UserError(f'{len(problems)} of {len(paths)} pictures are unusable:\n  {named}')


def verify_images(index: DatasetIndex, threads: int, *, log: Log = print) -> None:
  """Decodes every file of every split once, so that a damaged one is found before training and not during it.

  Args:
    index: of the data set.
    threads: pictures decoded at a time.
    log: takes progress lines when it takes long.

  Raises:
    UserError: names the files that are missing, unreadable or truncated.
  """
  paths = [path for split in index.splits.values() for path in split.paths]
  for_each_file(lambda i: _open_rgb(paths[i]).close(), paths, threads=threads, what='checking', log=log)
