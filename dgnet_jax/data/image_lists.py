"""Images as people hand them over: files, folders, PIL images, arrays; one or many, of any size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from dgnet_jax.data.images import decode_rgb, for_each_file, read_image
from dgnet_jax.data.index import name_some, printable
from dgnet_jax.data.readers.listing import list_images
from dgnet_jax.errors import UserError

CHANNELS = (1, 3, 4)  # of an array: grey, RGB, RGB and an alpha that is dropped


class Given:
  """Images in the order in which they were given; sound, but of any size.

  paths: of each image; '' where it came as an image or an array. names: for people, 'image 3' without a path.

  Args:
    items: paths, or u8[h, w, 3].
  """

  def __init__(self, items: Sequence[str | np.ndarray]) -> None:
    self.items = tuple(items)
    self.paths = tuple(item if isinstance(item, str) else '' for item in self.items)
    self.names = tuple(path or f'image {i}' for i, path in enumerate(self.paths))

  def __len__(self) -> int:
    return len(self.items)

  def resized(self, image_size_hw: tuple[int, int]) -> 'Resized':
    """As u8[N, H, W, 3], read as they are needed."""
    return Resized(self.items, image_size_hw)


class Resized:
  """Given images at one size, as `images.Pixels`: only the slice asked for is decoded.

  Args:
    items: paths, or u8[h, w, 3].
    image_size_hw: height and width to resize to, pixels.
  """

  def __init__(self, items: Sequence[str | np.ndarray], image_size_hw: tuple[int, int]) -> None:
    self._items = items
    self._size_hw = image_size_hw

  def __len__(self) -> int:
    return len(self._items)

  def __getitem__(self, index: slice, /) -> np.ndarray:
    items = self._items[index]
    if not items:
      return np.zeros((0, *self._size_hw, 3), np.uint8)
    with ThreadPoolExecutor(min(len(items), os.cpu_count() or 1)) as pool:
      return np.stack(list(pool.map(self._read, items)))

  def _read(self, item: str | np.ndarray) -> np.ndarray:
    if isinstance(item, str):
      return read_image(item, self._size_hw)
    height, width = self._size_hw  # as `read_image` does it
    return np.asarray(Image.fromarray(item).resize((width, height), Image.Resampling.BICUBIC))


def collect(given: Any, what: str = 'images') -> Given:
  """Finds out what was given, and decodes every file once: what is no good is told before work starts.

  Args:
    given: a path, a PIL image or an array, or a list of them. A folder stands for its images, sorted by name. Files
      are JPEG or PNG. Arrays are u8[h, w], u8[h, w, C] or u8[n, h, w, C] with C of 1 (grey), 3 (RGB) or 4 (the alpha is
      dropped); numbers other than uint8 are refused, for nothing says what their range is.
    what: they are, for messages.

  Raises:
    UserError: files are missing or damaged, a folder has no images, an array has another form, or nothing was given;
      names them.
  """
  if isinstance(given, Given):
    return given
  items: list[str | np.ndarray] = []
  for item in given if isinstance(given, list | tuple) else [given]:
    items += _expand(item, f'{what}, number {len(items)}')
  if not items:
    raise UserError(f'{what}: none given')
  paths = [item for item in items if isinstance(item, str)]
  for_each_file(
    lambda i: decode_rgb(paths[i], paths[i]).close(), paths, threads=os.cpu_count() or 1, what=f'checking {what}:'
  )
  return Given(items)


def _expand(item: Any, name: str) -> list[str | np.ndarray]:
  """The images of one item, as paths and arrays."""
  if isinstance(item, str | os.PathLike):
    path = os.fspath(item)
    if not os.path.isdir(path):
      return [path]
    found, others = list_images(pathlib.Path(path))
    if not found:
      there = f'; there are {name_some(others)}' if others else ''
      raise UserError(f'{printable(path)}: no images in this folder{there}')
    return [os.path.join(path, file) for file in found]
  if isinstance(item, Image.Image):
    return [_from_image(item, name)]
  if hasattr(item, '__array__'):
    return _from_array(np.asarray(item), name)
  raise UserError(f'{name}: {type(item).__name__} is no path, PIL image or array')


def _from_image(image: Image.Image, name: str) -> np.ndarray:
  """u8[h, w, 3]: what reading the image's file would give."""
  if image.mode == 'F':
    raise UserError(f'{name}: a PIL image of floating-point numbers; convert it to 8 bits')
  try:
    if image.mode.startswith('I'):  # 16 bits of grey, which `convert` would clip
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.copy()
    image.info.pop('transparency', None)  # dropped as it is from files; `convert` warns of it
    pixels = np.asarray(image.convert('RGB'))
  except (OSError, ValueError) as error:  # an image is decoded when it is first asked for
    raise UserError(f'{name}: {printable(getattr(image, "filename", "") or "PIL image")}: {error}') from error
  return _not_empty(pixels, name)


def _from_array(array: np.ndarray, name: str) -> list[str | np.ndarray]:
  """One image u8[h, w, 3], or those of a batch."""
  if array.ndim == 4:
    return [image for one in array for image in _from_array(one, name)]
  form = array[..., None] if array.ndim == 2 else array
  if form.ndim != 3 or form.shape[-1] not in CHANNELS:
    raise UserError(f'{name}: an array of shape {array.shape}; [height, width], [height, width, 1, 3 or 4] are images')
  if array.dtype != np.uint8:
    raise UserError(f'{name}: an array of {array.dtype}; images are uint8, 0 to 255')
  return [_not_empty(np.ascontiguousarray(np.broadcast_to(form[..., :3], (*form.shape[:2], 3))), name)]


def _not_empty(pixels: np.ndarray, name: str) -> np.ndarray:
  if not pixels.size:
    raise UserError(f'{name}: an image without pixels')
  return pixels
