"""Decoding during training with Pillow in threads: no TensorFlow, and little memory."""

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
import logging
import threading

import numpy as np

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.images import decode_image, read_encoded
from dgnet_jax.data.index import Split
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.data.sources.base import HostSource

logger = logging.getLogger(__name__)


class ThreadSource(HostSource):
  """A source that decodes a few batches ahead of the consumer.

  Encoded files stay in memory up to `data.cache_mib`; the others are read whenever they are drawn.
  """

  def __init__(
    self, split: Split, data_config: DataConfig, sampler: PairSampler, single_sampler: SingleSampler
  ) -> None:
    """Initializes the source; the arguments are those of `Source`."""
    super().__init__(split, data_config, sampler, single_sampler)
    self._threads, self._prefetch = data_config.decode_threads, data_config.prefetch_batches
    self._free_bytes = data_config.cache_mib * 2**20
    self._cache: dict[int, bytes] = {}
    self._lock = threading.Lock()

  def _read(self, index: int) -> bytes:
    if index in self._cache:
      return self._cache[index]
    encoded = read_encoded(self._paths[index])
    with self._lock:
      if self._free_bytes >= len(encoded) and index not in self._cache:
        self._cache[index] = encoded
        self._free_bytes -= len(encoded)
      elif self._free_bytes > 0 and index not in self._cache:
        self._free_bytes = 0
        logger.info(f'data.cache_mib is full: {len(self._cache)} of {len(self._paths)} files are kept in memory')
    return encoded

  def _decode(self, index: int) -> np.ndarray:
    return decode_image(self._read(index), self._paths[index], self._image_size_hw)

  def _images(self, indices: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    pending: collections.deque[tuple[tuple[int, ...], list[Future[np.ndarray]]]] = collections.deque()
    pool = ThreadPoolExecutor(self._threads, thread_name_prefix='decode')
    try:
      for batch in indices:
        pending.append((batch.shape, [pool.submit(self._decode, int(i)) for i in batch.ravel()]))
        if len(pending) > self._prefetch:
          yield self._join(*pending.popleft())
      while pending:
        yield self._join(*pending.popleft())
    finally:
      for _, images in pending:
        for image in images:
          image.cancel()
      pool.shutdown(wait=False)

  def _join(self, shape: tuple[int, ...], images: list[Future[np.ndarray]]) -> np.ndarray:
    return np.stack([image.result() for image in images]).reshape(*shape, *self._image_size_hw, 3)
