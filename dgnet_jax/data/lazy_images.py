"""Long rows of images, in memory or on disk, that are gone through slice by slice."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
import functools
import os
from typing import Any, Protocol

import numpy as np

from dgnet_jax.data.images import read_image, read_native, resize_bilinear


class Pixels(Protocol):
  """Images to go through in order: a numpy array u8[N, H, W, 3], or files read as they are needed."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: slice, /) -> np.ndarray: ...


class _Files:
  """Images on disk, of which only the slice asked for is decoded, several files at a time."""

  def __init__(
    self, paths: Sequence[str | os.PathLike[str]], read: Callable[[Any], np.ndarray], empty: np.ndarray
  ) -> None:
    self._paths = paths
    self._read = read
    self._empty = empty

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: slice, /) -> np.ndarray:
    paths = self._paths[index]
    if not paths:
      return self._empty
    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as pool:
      return np.stack(list(pool.map(self._read, paths)))


class ImageFiles(_Files):
  """Images on disk as `Pixels`.

  Args:
    paths: of the files.
    image_size_hw: height and width to resize to, pixels.
  """

  def __init__(self, paths: Sequence[str | os.PathLike[str]], image_size_hw: tuple[int, int]) -> None:
    read = functools.partial(read_image, image_size_hw=image_size_hw)
    super().__init__(paths, read, np.zeros((0, *image_size_hw, 3), np.uint8))


class BilinearFiles(_Files):
  """Images on disk as f32[N, H, W, 3] in -1..1, resized by `resize_bilinear` from the size that each has.

  Args:
    paths: of the files.
    image_size_hw: height and width to resize to, pixels.
  """

  def __init__(self, paths: Sequence[str], image_size_hw: tuple[int, int]) -> None:
    def read(path: str) -> np.ndarray:
      return 2 * resize_bilinear(read_native(path).astype(np.float32) / np.float32(255), image_size_hw) - 1

    super().__init__(paths, read, np.zeros((0, *image_size_hw, 3), np.float32))


class Chosen:
  """Images of an array in another order, or repeatedly, as `Pixels`: gathered slice by slice.

  Args:
    images: u8[M, H, W, 3].
    index: i64[N], into `images`.
  """

  def __init__(self, images: np.ndarray, index: np.ndarray) -> None:
    self._images = images
    self._index = index

  def __len__(self) -> int:
    return len(self._index)

  def __getitem__(self, index: slice, /) -> np.ndarray:
    return self._images[self._index[index]]
