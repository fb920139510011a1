"""Decoding while training with threads of Pillow: no TensorFlow, and little memory."""

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
import logging
import threading

import numpy as np

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.image_bytes import read_contents
from dgnet_jax.data.images import decode_image
from dgnet_jax.data.index import Split, printable
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.data.sources.base import Source
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


class ThreadSource(Source):
  """A source that decodes some batches ahead of the consumer.

  Files stay in memory as they are, undecoded, until `data.cache_mib` are full; the others are read when they are drawn.
  """

  def __init__(
    self, split: Split, data_config: DataConfig, sampler: PairSampler, single_sampler: SingleSampler
  ) -> None:
    """As `Source`; decode_threads, prefetch_batches and cache_mib are read as well.

    Args:
      split: of the training images.
      data_config: `config.data`.
      sampler: over `split.classes`.
      single_sampler: over `split.classes`.
    """
    super().__init__(split, data_config, sampler, single_sampler)
    self._threads, self._prefetch = data_config.decode_threads, data_config.prefetch_batches
    self._budget = data_config.cache_mib * 2**20
    self._kept: dict[int, bytes] = {}
    self._lock = threading.Lock()

  def _contents(self, place: int) -> bytes:
    if place in self._kept:
      return self._kept[place]
    path = self._paths[place]
    try:
      contents = read_contents(path)
    except OSError as error:
      raise UserError(f'{printable(path)}: unreadable ({error.strerror or error})') from error
    with self._lock:
      if self._budget >= len(contents) and place not in self._kept:
        self._kept[place] = contents
        self._budget -= len(contents)
      elif self._budget > 0 and place not in self._kept:
        self._budget = 0
        logger.info(f'data.cache_mib is full: {len(self._kept)} of {len(self._paths)} files are kept in memory')
    return contents

  def _decode(self, place: int) -> np.ndarray:
    return decode_image(self._contents(place), self._paths[place], self._image_size_hw)

  def _images(self, places: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    waiting: collections.deque[tuple[tuple[int, ...], list[Future[np.ndarray]]]] = collections.deque()
    pool = ThreadPoolExecutor(self._threads, thread_name_prefix='decode')
    try:
      for i in places:
        waiting.append((i.shape, [pool.submit(self._decode, int(place)) for place in i.ravel()]))
        if len(waiting) > self._prefetch:
          yield self._joined(*waiting.popleft())
      while waiting:
        yield self._joined(*waiting.popleft())
    finally:
      for _, images in waiting:
        for image in images:
          image.cancel()
      pool.shutdown(wait=False)

  def _joined(self, shape: tuple[int, ...], images: list[Future[np.ndarray]]) -> np.ndarray:
    return np.stack([image.result() for image in images]).reshape(*shape, *self._image_size_hw, 3)
