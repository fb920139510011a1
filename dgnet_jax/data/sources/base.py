"""What every source of training batches has in common."""

import abc
from collections.abc import Iterable, Iterator
import itertools
from typing import Any

import numpy as np

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.index import Split
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.types import PixelBatch


def _pair_batch(pixels: Any, identity: Any) -> PixelBatch:
  """From pixels [B, 2 streams, image and positive, H, W, 3]; arrays of the host, until a feed moves them."""
  return PixelBatch(image=pixels[:, :, 0], positive=pixels[:, :, 1], identity=identity)


class Source(abc.ABC):
  """Batches of a split's images, each a pure function of (seed, step).

  Attributes:
    sampler: of the pairs that `batches` yields.
    single_sampler: of the single images that `single_batches` yields.
  """

  def __init__(
    self, split: Split, data_config: DataConfig, sampler: PairSampler, single_sampler: SingleSampler
  ) -> None:
    """Args:
    split: of the training images.
    data_config: `config.data`.
    sampler: over `split.classes`.
    single_sampler: over `split.classes`.
    """
    self._paths = split.paths
    self._image_size_hw = data_config.image_size_hw
    self.sampler = sampler
    self.single_sampler = single_sampler

  @abc.abstractmethod
  def _images(self, places: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """For each array i[...] of places in the split its images u8[..., H, W, 3]; may read ahead."""

  def batches(self, start_step: int) -> Iterator[PixelBatch]:
    """Endless batches of this process from `start_step` on, as numpy arrays.

    Raises:
      UserError: there are fewer images than a batch takes, or a file became unreadable.
    """
    drawn, drawn_again = itertools.tee(map(self.sampler.batch, itertools.count(start_step)))
    images = self._images(np.stack([d['image'], d['positive']], axis=2) for d in drawn)
    for pixels, d in zip(images, drawn_again, strict=False):
      yield _pair_batch(pixels, d['identity'])

  def single_batches(self, start_step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches of single images u8[B, H, W, 3] with their classes i32[B], from `start_step` on.

    Raises:
      UserError: there are fewer images than a batch takes, or a file became unreadable.
    """
    drawn, drawn_again = itertools.tee(map(self.single_sampler.batch, itertools.count(start_step)))
    for pixels, d in zip(self._images(d['image'] for d in drawn), drawn_again, strict=False):
      yield pixels, d['identity']
