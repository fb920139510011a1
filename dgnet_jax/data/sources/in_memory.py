"""All training images in memory, decoded once at the start: no TensorFlow, and no decoding during training."""

from collections.abc import Iterable, Iterator
import logging
import os

import numpy as np

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.images import for_each_file, read_image
from dgnet_jax.data.index import Split
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.data.sources.base import Source
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


def _physical_memory() -> float:
  """Returns the bytes of this machine's memory; infinity if the system does not report it."""
  try:
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (AttributeError, OSError, ValueError):
    return float('inf')


class MemorySource(Source):
  """A source that holds every image as u8[H, W, 3]."""

  def __init__(
    self, split: Split, data_config: DataConfig, sampler: PairSampler, single_sampler: SingleSampler
  ) -> None:
    """Decodes every image; the arguments are those of `Source`.

    Raises:
      UserError: images are unreadable, or the machine has not enough memory.
    """
    super().__init__(split, data_config, sampler, single_sampler)
    height, width = self._image_size_hw
    needed, present = len(split) * height * width * 3, _physical_memory()
    if needed > present:
      raise UserError(
        f'{len(split)} images of {height}x{width} need {needed / 2**30:.1f} GiB of memory, and the machine has '
        f"{present / 2**30:.1f} GiB; the loaders 'tfdata' and 'threads' (data.loader) do not hold them"
      )
    logger.info(f'holding {len(split)} images of {height}x{width} in memory: {needed / 2**20:.0f} MiB')
    self._pixels = np.empty((len(split), height, width, 3), np.uint8)

    def decode(i: int) -> None:
      self._pixels[i] = read_image(split.paths[i], (height, width))

    for_each_file(decode, split.paths, threads=data_config.decode_threads, action='decoding')

  def _images(self, indices: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    return (self._pixels[i] for i in indices)
