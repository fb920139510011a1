"""Long sequences of images, in memory or on disk, that are read slice by slice."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
import functools
import os
from typing import Any, Protocol

import numpy as np

from dgnet_jax.data.images import read_image, read_unresized, resize_bilinear


class ImageSequence(Protocol):
  """Images read in slices: an array u8[N, H, W, 3], or files decoded when they are needed."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: slice, /) -> np.ndarray: ...


class _Files:
  """Image files, of which a slice is decoded at a time, in threads."""

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
  """Image files as an `ImageSequence`.

  Args:
    paths: paths of the files.
    image_size_hw: height and width to resize to, pixels.
  """

  def __init__(self, paths: Sequence[str | os.PathLike[str]], image_size_hw: tuple[int, int]) -> None:
    read = functools.partial(read_image, image_size_hw=image_size_hw)
    super().__init__(paths, read, np.zeros((0, *image_size_hw, 3), np.uint8))


class BilinearImageFiles(_Files):
  """Image files as f32[N, H, W, 3] in [-1, 1], resized from their own sizes by `resize_bilinear`.

  Args:
    paths: paths of the files.
    image_size_hw: height and width to resize to, pixels.
  """

  def __init__(self, paths: Sequence[str], image_size_hw: tuple[int, int]) -> None:
    def read(path: str) -> np.ndarray:
      return 2 * resize_bilinear(read_unresized(path).astype(np.float32) / np.float32(255), image_size_hw) - 1

    super().__init__(paths, read, np.zeros((0, *image_size_hw, 3), np.float32))


class ReorderedImages:
  """The images of an array in another order or repeatedly, as an `ImageSequence`.

  Args:
    images: u8[M, H, W, 3].
    index: i64[N], indices into `images`.
  """

  def __init__(self, images: np.ndarray, index: np.ndarray) -> None:
    self._images = images
    self._index = index

  def __len__(self) -> int:
    return len(self._index)

  def __getitem__(self, index: slice, /) -> np.ndarray:
    reordered: np.ndarray = self._images[self._index[index]]
    return reordered
