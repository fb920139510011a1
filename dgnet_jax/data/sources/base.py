"""The interface of all sources of training batches."""

import abc
from collections.abc import Iterable, Iterator
import itertools
from typing import Any

import numpy as np

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.index import Split
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.types import PixelBatch


def _pair_batch(pixels: Any, identity: Any) -> PixelBatch:
  """Makes a batch of pixels [B, 2 streams, image and positive, H, W, 3]; numpy arrays, until a feed moves them."""
  return PixelBatch(image=pixels[:, :, 0], positive=pixels[:, :, 1], identity=identity)


class Source(abc.ABC):
  """Batches of a split's images, each a pure function of (seed, step).

  Their arrays are numpy arrays with this process's rows, until a feed moves them, or already global arrays that are
  split over the devices.

  Attributes:
    sampler: draws the batches of `batches`.
    single_sampler: draws the batches of `single_batches`.
  """

  def __init__(
    self, split: Split, data_config: DataConfig, sampler: PairSampler, single_sampler: SingleSampler
  ) -> None:
    """Initializes the source.

    Args:
      split: the training images.
      data_config: section `data` of the config.
      sampler: sampler over `split.classes`.
      single_sampler: sampler over `split.classes`.
    """
    self._paths = split.paths
    self._image_size_hw = data_config.image_size_hw
    self.sampler = sampler
    self.single_sampler = single_sampler

  @abc.abstractmethod
  def batches(self, start_step: int) -> Iterator[PixelBatch]:
    """Yields every batch of pairs from `start_step` on, without end.

    Raises:
      UserError: there are fewer images than the batch size, or a file became unreadable.
    """

  @abc.abstractmethod
  def single_batches(self, start_step: int) -> Iterator[tuple[Any, Any]]:
    """Yields batches of single images u8[B, H, W, 3] with their classes i32[B], from `start_step` on, without end.

    Raises:
      UserError: there are fewer images than the batch size, or a file became unreadable.
    """


class HostSource(Source):
  """A source of numpy arrays, which are this process's rows."""

  @abc.abstractmethod
  def _images(self, indices: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields u8[..., H, W, 3] for each array i64[...] of indices into the split; may read ahead of its consumer."""

  def batches(self, start_step: int) -> Iterator[PixelBatch]:
    """See `Source`."""
    drawn, drawn_again = itertools.tee(map(self.sampler.batch, itertools.count(start_step)))
    images = self._images(np.stack([draw['image'], draw['positive']], axis=2) for draw in drawn)
    for pixels, draw in zip(images, drawn_again, strict=False):
      yield _pair_batch(pixels, draw['identity'])

  def single_batches(self, start_step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """See `Source`."""
    drawn, drawn_again = itertools.tee(map(self.single_sampler.batch, itertools.count(start_step)))
    for pixels, draw in zip(self._images(draw['image'] for draw in drawn), drawn_again, strict=False):
      yield pixels, draw['identity']
