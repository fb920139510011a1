"""Decoding and resizing of images with Pillow, and loops over many files."""

from collections.abc import Callable, Sequence
import concurrent.futures
import io
import logging
import os
from typing import NamedTuple
import warnings

import numpy as np
import PIL
from PIL import ExifTags, Image

from dgnet_jax.data.image_bytes import read_bytes
from dgnet_jax.data.index import printable, summarize
from dgnet_jax.data.jpeg_scans import MAX_SCANS, has_too_many_scans
from dgnet_jax.errors import UserError
from dgnet_jax.utils.progress import ProgressLog

logger = logging.getLogger(__name__)


FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP')  # Pillow's names
FORMAT_NAMES = 'JPEG, PNG, BMP or WebP'
MAX_PIXELS = 89_478_485  # where Pillow warns: 256 MiB when decoded
# Exif's orientation -> what makes the stored image upright; 1 is upright.
UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
  """Returns Exif's orientation of an image, 1 to 8; 1 if it has none or an unreadable one."""
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
  except Exception:  # damaged metadata; the pixels may be whole
    return 1
  return int(orientation) if orientation in UPRIGHT else 1


def upright(image: Image.Image) -> Image.Image:
  """Decodes an image and turns it as Exif's orientation says; raises what Pillow does if it is damaged."""
  image.load()  # before its metadata is read, which hides errors of the pixels
  turn = UPRIGHT.get(_orientation(image))
  return image if turn is None else image.transpose(turn)


def _open(encoded: bytes, shown: str) -> Image.Image:
  """Opens an image without decoding it; raises UserError if decoding would take too long or too much memory."""
  if has_too_many_scans(encoded):
    raise UserError(f'{shown}: a JPEG of more than {MAX_SCANS} scans; save it again')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)
    image = Image.open(io.BytesIO(encoded), formats=FORMATS)
  if image.width * image.height > MAX_PIXELS:
    raise UserError(f'{shown}: {image.width} x {image.height} pixels; at most {MAX_PIXELS / 1e6:.0f} million are read')
  return image


class Header(NamedTuple):
  """What decoders other than Pillow must know about a file: Pillow's name of its format, and Exif's orientation."""

  format: str
  orientation: int


def read_header(path: str) -> Header:
  """Reads the header of an image file; ('', 1) if that fails, which the file's decoder reports.

  Raises:
    UserError: decoding the file would take too long or too much memory, or it is not a regular file.
  """
  encoded = read_encoded(path)
  try:
    with _open(encoded, printable(path)) as image:
      return Header(image.format or '', _orientation(image))
  except UserError:
    raise
  except Exception:
    return Header('', 1)


def _to_rgb(image: Image.Image) -> Image.Image:
  """Converts to 8-bit RGB, pixel for pixel as TensorFlow decodes the same file.

  Transparency is dropped, CMYK is ink on white paper, 16 bits lose the lower 8, and an animation is its first frame.
  """
  if image.mode.startswith('I'):  # 16-bit gray, which `convert` would clip
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  image.info.pop('transparency', None)  # `convert` warns about it
  return image.convert('RGB')


def read_encoded(path: str | os.PathLike[str]) -> bytes:
  """Returns the bytes of an image file or record, as `read_bytes`; raises UserError if they cannot be read."""
  try:
    return read_bytes(path)
  except OSError as error:
    raise UserError(f'{printable(os.fspath(path))}: unreadable ({error.strerror or error})') from error


def decode_rgb(encoded: bytes, name: str | os.PathLike[str]) -> Image.Image:
  """Decodes a file in one of `FORMATS` completely, and turns it upright as its Exif orientation says.

  Args:
    encoded: content of the file.
    name: name of the image in error messages.

  Raises:
    UserError: the file cannot be decoded, or it has more than `MAX_PIXELS` pixels or `MAX_SCANS` scans.
  """
  shown = printable(os.fspath(name))
  try:
    with _open(encoded, shown) as image:
      return _to_rgb(upright(image))
  except UserError:
    raise
  except PIL.UnidentifiedImageError:
    raise UserError(f'{shown}: not a readable {FORMAT_NAMES} image') from None
  except Exception as error:  # damaged files make Pillow's decoders raise anything, even SyntaxError
    raise UserError(f'{shown}: unreadable ({str(error) or type(error).__name__})') from error


def _open_rgb(path: str) -> Image.Image:
  return decode_rgb(read_encoded(path), path)


def _resized(image: Image.Image, image_size_hw: tuple[int, int]) -> np.ndarray:
  height, width = image_size_hw
  return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def read_image(path: str, image_size_hw: tuple[int, int]) -> np.ndarray:
  """Reads an image and resizes it as the release does: bicubic, antialiased when it shrinks.

  Args:
    path: path of a file, or address of a record.
    image_size_hw: height and width of the result, pixels.

  Returns:
    u8[H, W, 3], RGB.

  Raises:
    UserError: the file is missing, unreadable or truncated.
  """
  return _resized(_open_rgb(path), image_size_hw)


def read_unresized(path: str) -> np.ndarray:
  """Reads an image at its own size, u8[H, W, 3]; raises like `read_image`."""
  with _open_rgb(path) as image:
    return np.asarray(image)


def decode_image(encoded: bytes, name: str, image_size_hw: tuple[int, int]) -> np.ndarray:
  """Does what `read_image` does, from the bytes of a file; `name` is used in error messages."""
  return _resized(decode_rgb(encoded, name), image_size_hw)


def verify_image(path: str) -> None:
  """Decodes an image completely and raises UserError if that fails."""
  _open_rgb(path).close()


def _bilinear_taps(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns for each of `target` positions along an axis the index before, the index after, and the latter's weight."""
  position = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
  before = position.astype(np.int64)
  return before, np.minimum(before + 1, size - 1), (position - before).astype(np.float32)


def resize_bilinear(image: np.ndarray, image_size_hw: tuple[int, int]) -> np.ndarray:
  """Resizes bilinearly without antialiasing, with pixel centers at halves.

  The same as torch's `interpolate` with `align_corners=False`.

  Args:
    image: f32[H, W, C].
    image_size_hw: height and width of the result, pixels.

  Returns:
    f32[H', W', C].
  """
  for axis, target in enumerate(image_size_hw):
    before, after, weight = _bilinear_taps(image.shape[axis], target)
    weight = weight.reshape(-1, 1, 1) if axis == 0 else weight.reshape(-1, 1)
    image = image.take(before, axis) * (1 - weight) + image.take(after, axis) * weight
  return image


def find_problems(
  function: Callable[[int], object], paths: Sequence[str], *, threads: int, action: str
) -> dict[int, str]:
  """Runs `function(i)` for every path in threads and logs the progress.

  Args:
    function: raises UserError if the i-th file is unusable.
    paths: paths of the files.
    threads: number of files processed at a time.
    action: what is being done, for the progress line.

  Returns:
    The error message of each unusable file by its index, in ascending order.
  """

  def problem_with(i: int) -> str:
    try:
      function(i)
    except UserError as error:
      return str(error)
    return ''

  problems: dict[int, str] = {}
  progress = ProgressLog(logger, action, len(paths), 'images')
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    try:
      for i, problem in enumerate(pool.map(problem_with, range(len(paths)))):
        if problem:
          problems[i] = problem
        progress.update(i + 1)
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)  # on Ctrl-C, drop what is still queued
      raise
  return problems


def raise_problems(problems: Sequence[str], total: int) -> None:
  """Raises UserError with the first few problems, if there are any.

  Args:
    problems: an error message for each unusable image.
    total: number of images that were examined.
  """
  if problems:
    listed = summarize(sorted(problems), separator='\n  ')
    raise UserError(f'{len(problems)} of {total} images are unusable:\n  {listed}')


def for_each_file(function: Callable[[int], object], paths: Sequence[str], *, threads: int, action: str) -> None:
  """Does what `find_problems` does, and raises UserError at the end if any file is unusable."""
  raise_problems(list(find_problems(function, paths, threads=threads, action=action).values()), len(paths))
