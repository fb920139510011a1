"""Images as arrays: read, resize, check, normalise. No TensorFlow here."""

from collections.abc import Callable, Sequence
import concurrent.futures
import io
import logging
import os
import time
from typing import BinaryIO

import numpy as np
from PIL import Image

from dgnet_jax.data.image_bytes import is_record, read_contents
from dgnet_jax.data.index import DatasetIndex, name_some, printable
from dgnet_jax.errors import UserError
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)


FORMATS = ('JPEG', 'PNG')  # what every loader reads alike
PROGRESS_SECONDS = 5.0  # between two progress lines


def _to_rgb(image: Image.Image) -> Image.Image:
  """8-bit RGB, pixel for pixel what TensorFlow makes of the same file.

  Transparency is dropped, CMYK is ink on white paper, 16 bits lose the lower 8, and an animation is its first frame.
  """
  if image.mode.startswith('I'):  # 16 bits of grey, which `convert` would clip
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  image.info.pop('transparency', None)  # `convert` warns of it
  return image.convert('RGB')


def decode_rgb(file: str | os.PathLike[str] | BinaryIO, name: str | os.PathLike[str]) -> Image.Image:
  """Decodes a whole file.

  Args:
    file: a path or an open file.
    name: what to call it.

  Raises:
    UserError: names the file and what is wrong with it.
  """
  shown = printable(os.fspath(name))
  try:
    with Image.open(file, formats=FORMATS) as image:
      return _to_rgb(image)
  except Image.UnidentifiedImageError:
    raise UserError(f'{shown}: not a readable {" or ".join(FORMATS)} image') from None
  except OSError as error:
    raise UserError(f'{shown}: unreadable ({error.strerror or error})') from error
  except Exception as error:  # Pillow's decoders raise what a damaged file makes them, SyntaxError among it
    raise UserError(f'{shown}: unreadable ({str(error) or type(error).__name__})') from error


def _open_rgb(path: str) -> Image.Image:
  return decode_rgb(io.BytesIO(read_contents(path)) if is_record(path) else path, path)


def _resized(image: Image.Image, image_size_hw: tuple[int, int]) -> np.ndarray:
  height, width = image_size_hw
  return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def read_image(path: str, image_size_hw: tuple[int, int]) -> np.ndarray:
  """Reads an image and resizes it as the release does: bicubic, antialiased when it shrinks.

  Args:
    path: a JPEG or PNG file, or a record of a prepared data set.
    image_size_hw: height and width to resize to, pixels.

  Returns:
    u8[H, W, 3], RGB.

  Raises:
    UserError: the file is missing, unreadable or truncated; names it.
  """
  return _resized(_open_rgb(path), image_size_hw)


def read_native(path: str) -> np.ndarray:
  """An image u8[H, W, 3] as it is, without resizing; raises as `read_image`."""
  with _open_rgb(path) as image:
    return np.asarray(image)


def decode_image(contents: bytes, name: str, image_size_hw: tuple[int, int]) -> np.ndarray:
  """`read_image` of a file's bytes; `name` is what to call it."""
  return _resized(decode_rgb(io.BytesIO(contents), name), image_size_hw)


def _neighbours(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For each of `target` places along an axis of `size`: the one before, the one after, and the share of the latter."""
  place = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
  before = place.astype(np.int64)
  return before, np.minimum(before + 1, size - 1), (place - before).astype(np.float32)


def resize_bilinear(image: np.ndarray, image_size_hw: tuple[int, int]) -> np.ndarray:
  """Bilinear without antialiasing, centres of pixels at halves: torch's interpolate with align_corners=False.

  Args:
    image: f32[H, W, C].
    image_size_hw: height and width to resize to, pixels.

  Returns:
    f32[H', W', C].
  """
  for axis, target in enumerate(image_size_hw):
    before, after, share = _neighbours(image.shape[axis], target)
    share = share.reshape(-1, 1, 1) if axis == 0 else share.reshape(-1, 1)
    image = image.take(before, axis) * (1 - share) + image.take(after, axis) * share
  return image


def find_problems(
  function: Callable[[int], object], paths: Sequence[str], *, threads: int, what: str
) -> dict[int, str]:
  """Runs `function(i)` for the i-th path in threads, with a progress line now and then.

  Args:
    function: raises UserError for a file that is no good.
    paths: of the files.
    threads: at a time.
    what: what is being done, for the progress line.

  Returns:
    What is wrong with the files that are no good, in the order of the paths.
  """

  def attempt(i: int) -> str:
    try:
      function(i)
    except UserError as error:
      return str(error)
    return ''

  problems: dict[int, str] = {}
  progress, last = Progress(len(paths), unit='images'), time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    try:
      for i, problem in enumerate(pool.map(attempt, range(len(paths)))):
        if problem:
          problems[i] = problem
        if time.monotonic() - last > PROGRESS_SECONDS:
          logger.info(f'{what} {progress.line(i + 1)}')
          last = time.monotonic()
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C: do not work off what waits
      raise
  return problems


def for_each_file(function: Callable[[int], object], paths: Sequence[str], *, threads: int, what: str) -> None:
  """As `find_problems`, when there should be none.

  Raises:
    UserError: the files that are no good, the first few named, once all were seen.
  """
  problems = find_problems(function, paths, threads=threads, what=what)
  if problems:
    named = name_some(sorted(problems.values()), separator='\n  ')
    raise UserError(f'{len(problems)} of {len(paths)} images are unusable:\n  {named}')


def verify_images(index: DatasetIndex, threads: int) -> None:
  """Decodes every file of every split once, so that a damaged one is found before training and not during it.

  Args:
    index: of the data set.
    threads: images decoded at a time.

  Raises:
    UserError: names the files that are missing, unreadable or truncated.
  """
  paths = [path for split in index.splits.values() for path in split.paths]
  for_each_file(lambda i: _open_rgb(paths[i]).close(), paths, threads=threads, what='checking')
