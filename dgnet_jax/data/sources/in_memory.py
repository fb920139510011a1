"""All training images in memory, decoded once at the start: no TensorFlow, and no decoding during training."""

from collections.abc import Iterable, Iterator
import logging
import os

import numpy as np

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.images import for_each_file, read_image
from dgnet_jax.data.index import Split
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.data.sources.base import HostSource
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


def _physical_memory() -> float:
  """Returns the bytes of this machine's memory; infinity if the system does not report it."""
  try:
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (AttributeError, OSError, ValueError):
    return float('inf')


def decode_all(split: Split, data_config: DataConfig, *, place: str) -> np.ndarray:
  """Decodes all images of a split; logs how much memory they take.

  Args:
    split: the images.
    data_config: image_size_hw and decode_threads are read.
    place: where they will be held, for the log.

  Returns:
    u8[N, H, W, 3].

  Raises:
    UserError: images are unreadable, or the machine has not enough memory.
  """
  height, width = data_config.image_size_hw
  needed, present = len(split) * height * width * 3, _physical_memory()
  if needed > present:
    raise UserError(
      f'{len(split)} images of {height}x{width} need {needed / 2**30:.1f} GiB of memory, and the machine has '
      f"{present / 2**30:.1f} GiB; the loaders 'tfdata' and 'threads' (data.loader) do not hold them"
    )
  logger.info(f'holding {len(split)} images of {height}x{width} {place}: {needed / 2**20:.0f} MiB')
  pixels = np.empty((len(split), height, width, 3), np.uint8)

  def decode(i: int) -> None:
    pixels[i] = read_image(split.paths[i], (height, width))

  for_each_file(decode, split.paths, threads=data_config.decode_threads, action='decoding')
  return pixels


class MemorySource(HostSource):
  """A source that holds every image as u8[H, W, 3]."""

  def __init__(
    self, split: Split, data_config: DataConfig, sampler: PairSampler, single_sampler: SingleSampler
  ) -> None:
    """Decodes every image; the arguments are those of `Source`.

    Raises:
      UserError: images are unreadable, or the machine has not enough memory.
    """
    super().__init__(split, data_config, sampler, single_sampler)
    self._pixels = decode_all(split, data_config, place='in memory')

  def _images(self, indices: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    return (self._pixels[i] for i in indices)
