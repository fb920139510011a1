"""Images given by the user: paths, folders, PIL images or arrays; one or many, of any size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from dgnet_jax.data.images import for_each_file, read_image, upright, verify_image
from dgnet_jax.data.index import printable, summarize
from dgnet_jax.data.readers.listing import list_recursively, warn_about_skipped
from dgnet_jax.errors import UserError
from dgnet_jax.utils.paths import local_text

CHANNELS = (1, 3, 4)  # of an array: gray, RGB, or RGB with an alpha channel that is dropped


class ImageList:
  """Verified images of any size, in the given order.

  Args:
    items: paths, or arrays u8[h, w, 3].

  Attributes:
    items: the images as given.
    paths: path of each image; '' for arrays.
    names: name of each image in messages: its path, or 'image 3'.
  """

  def __init__(self, items: Sequence[str | np.ndarray]) -> None:
    self.items = tuple(items)
    self.paths = tuple(item if isinstance(item, str) else '' for item in self.items)
    self.names = tuple(path or f'image {i}' for i, path in enumerate(self.paths))

  def __len__(self) -> int:
    return len(self.items)

  def resized(self, image_size_hw: tuple[int, int]) -> 'ResizedImages':
    """Returns the images as a sequence u8[N, H, W, 3] that is read when needed."""
    return ResizedImages(self.items, image_size_hw)


class ResizedImages:
  """Images at one size as a `lazy_images.ImageSequence`: a slice is decoded at a time.

  Args:
    items: paths, or arrays u8[h, w, 3].
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
    height, width = self._size_hw  # resized as in `read_image`
    return np.asarray(Image.fromarray(item).resize((width, height), Image.Resampling.BICUBIC))


def as_image_list(images: Any, name: str = 'images') -> ImageList:
  """Converts images of any supported kind to an `ImageList`, and decodes every file once to verify it.

  Args:
    images: a path, a PIL image or an array, or a list of these; an `ImageList` is returned unchanged. A folder stands
      for the images in it and its subfolders, sorted by path. Files are JPEG, PNG, BMP or WebP. Arrays are u8[h, w],
      u8[h, w, C] or u8[n, h, w, C] with C of 1 (gray), 3 (RGB) or 4 (alpha is dropped); other dtypes are refused
      because their range is unknown.
    name: name of the images in error messages.

  Raises:
    UserError: files are missing or damaged, a folder has no images, an array has another shape or dtype, or there are
      no images.
  """
  if isinstance(images, ImageList):
    return images
  items = list_images(images, name)
  paths = [item for item in items if isinstance(item, str)]
  for_each_file(lambda i: verify_image(paths[i]), paths, threads=os.cpu_count() or 1, action=f'checking {name}')
  return ImageList(items)


def list_images(images: Any, name: str = 'images') -> list[str | np.ndarray]:
  """Like `as_image_list`, but does not open files: returns their paths, and arrays u8[h, w, 3]."""
  items: list[str | np.ndarray] = []
  for item in images if isinstance(images, list | tuple) else [images]:
    items += _expand(item, f'{name}, number {len(items)}')
  if not items:
    raise UserError(f'{name}: none given')
  return items


def _expand(item: Any, name: str) -> list[str | np.ndarray]:
  """Returns the images of one item as paths and arrays."""
  if isinstance(item, str | os.PathLike):
    path = local_text(item)
    if not os.path.isdir(path):
      return [path]
    folder = pathlib.Path(path)
    images, others = list_recursively(folder)
    skipped = [os.path.relpath(other, path) for other in others]
    if not images:
      contents = f'; it contains {summarize(skipped)}' if skipped else ''
      raise UserError(f'{printable(path)}: no images in this folder and its subfolders{contents}')
    warn_about_skipped(folder, skipped)
    return list(images)
  if isinstance(item, Image.Image):
    return [_from_pil(item, name)]
  if hasattr(item, '__array__'):
    return _from_array(np.asarray(item), name)
  raise UserError(f'{name}: {type(item).__name__} is not a path, PIL image or array')


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
  """Returns u8[h, w, 3], the same as reading the image's file would give."""
  if image.mode == 'F':
    raise UserError(f'{name}: a PIL image of floating-point numbers; convert it to 8 bits')
  try:
    image = upright(image)
    if image.mode.startswith('I'):  # 16-bit gray, which `convert` would clip
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.copy()
    image.info.pop('transparency', None)  # dropped as it is from files; `convert` warns about it
    pixels = np.asarray(image.convert('RGB'))
  except (OSError, ValueError) as error:  # PIL decodes a file only now
    raise UserError(f'{name}: {printable(getattr(image, "filename", "") or "PIL image")}: {error}') from error
  return _not_empty(pixels, name)


def _from_array(array: np.ndarray, name: str) -> list[str | np.ndarray]:
  """Returns one image u8[h, w, 3], or those of a batch."""
  if array.ndim == 4:
    return [image for row in array for image in _from_array(row, name)]
  channels_last = array[..., None] if array.ndim == 2 else array
  if channels_last.ndim != 3 or channels_last.shape[-1] not in CHANNELS:
    raise UserError(
      f'{name}: an array of shape {array.shape}; expected [height, width] or [height, width, channels] with 1, 3 or 4 '
      'channels'
    )
  if array.dtype != np.uint8:
    raise UserError(f'{name}: an array of {array.dtype}; expected uint8 in [0, 255]')
  rgb = np.broadcast_to(channels_last[..., :3], (*channels_last.shape[:2], 3))
  return [_not_empty(np.ascontiguousarray(rgb), name)]


def _not_empty(pixels: np.ndarray, name: str) -> np.ndarray:
  if not pixels.size:
    raise UserError(f'{name}: an image without pixels')
  return pixels
