"""Decoding during training with tf.data. TensorFlow is imported only when a source is created."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import itertools
import math
import os
from typing import Any
import weakref

import numpy as np

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.images import Header, read_header, read_image
from dgnet_jax.data.index import Split, printable, summarize
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.data.sources.base import HostSource
from dgnet_jax.errors import UserError

PILLOW_FORMATS = ('BMP', 'WEBP')  # that TensorFlow does not decode as Pillow does
_ENDLESS = 2**62  # elements of a tf.data range that no run exhausts


def import_tensorflow() -> Any:
  """Imports TensorFlow and keeps it off accelerators, whose memory JAX needs; raises ImportError if that fails."""
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # unused here, and it prints a notice to stderr
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')
  tf.config.set_visible_devices([], 'TPU')
  return tf


def decode_and_resize(tf: Any, encoded: Any, orientation: Any, image_size_hw: tuple[int, int]) -> Any:
  """`read_image` in TensorFlow operations: the same decoder settings, and the same resizing up to rounding.

  Args:
    tf: the module from `import_tensorflow`.
    encoded: scalar string tensor, the bytes of a JPEG or PNG file.
    orientation: scalar integer tensor, from `read_header`.
    image_size_hw: height and width of the result, pixels.

  Returns:
    u8[H, W, 3], RGB.
  """
  height, width = image_size_hw
  # The default, INTEGER_FAST, changes two thirds of the values. Despite its name the operation also decodes PNG.
  image = tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE')
  image = _upright(tf, image, orientation)
  # As in Pillow: first the width, then the height, with rounding in between.
  for size in ((tf.shape(image)[0], width), (height, width)):
    image = tf.image.resize(image, size, method='bicubic', antialias=True)
    image = tf.cast(tf.clip_by_value(tf.floor(image + 0.5), 0, 255), tf.uint8)
  return tf.ensure_shape(image, (height, width, 3))


def _upright(tf: Any, image: Any, orientation: Any) -> Any:
  """Turns an image as Exif's orientation says: from 5 on it is transposed, and then mirrored along one or both axes."""

  def if_any(image: Any, orientations: tuple[int, ...], change: Callable[[Any], Any]) -> Any:
    return tf.cond(tf.reduce_any(tf.equal(orientation, orientations)), lambda: change(image), lambda: image)

  image = if_any(image, (5, 6, 7, 8), lambda x: tf.transpose(x, (1, 0, 2)))
  image = if_any(image, (2, 3, 6, 7), lambda x: tf.reverse(x, (1,)))
  return if_any(image, (3, 4, 7, 8), lambda x: tf.reverse(x, (0,)))


class UnsupportedFormatError(UserError):
  """Some images have a format that only Pillow decodes."""


class _Pipeline:
  """An endless tf.data pipeline that decodes, in order, the batches whose indices are put into its queue.

  The sampler runs in the consumer's thread and fills the queue, so tf.data's threads run no Python, and the pipeline
  never has to be rebuilt.
  """

  def __init__(
    self, tf: Any, paths: np.ndarray, headers: Sequence[Header], data_config: DataConfig, batch_images: int
  ) -> None:
    """Builds the pipeline.

    Args:
      tf: the module from `import_tensorflow`.
      paths: encoded paths of all images.
      headers: their headers.
      data_config: image_size_hw, decode_threads and prefetch_batches are read.
      batch_images: images per batch.
    """
    threads, prefetch = data_config.decode_threads, data_config.prefetch_batches
    # How far the pipeline reads ahead of the consumer: the batches that it keeps ready, those that the threads are
    # decoding, and one of which it has used a part. With so many in the queue it never waits for indices.
    self.batches_ahead = prefetch + math.ceil((threads + 1) / batch_images) + 1
    self._tf = tf
    self._queue = tf.queue.FIFOQueue(self.batches_ahead + 1, [tf.int64], [(batch_images,)])
    # Also runs at interpreter exit: TensorFlow must not shut down while a thread waits for indices.
    self._finalizer = weakref.finalize(self, self._queue.close, cancel_pending_enqueues=True)
    path_tensor, queue, image_size_hw = tf.constant(paths), self._queue, data_config.image_size_hw
    orientations = tf.constant([header.orientation for header in headers], tf.int64)

    def next_indices(_: Any) -> Any:
      return queue.dequeue()

    def decode(index: Any) -> Any:
      encoded = tf.io.read_file(tf.gather(path_tensor, index))
      return decode_and_resize(tf, encoded, tf.gather(orientations, index), image_size_hw)

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.threading.private_threadpool_size = threads
    graph = tf.autograph.experimental.do_not_convert
    dataset = tf.data.Dataset.range(_ENDLESS).map(graph(next_indices)).unbatch()
    dataset = dataset.map(graph(decode), num_parallel_calls=threads).batch(batch_images)
    self._iterator = iter(dataset.prefetch(prefetch).with_options(options).as_numpy_iterator())

  def put(self, indices: np.ndarray) -> None:
    """Queues the indices of one batch; at most `batches_ahead` + 1 batches may be put and not yet taken."""
    self._queue.enqueue(self._tf.constant(indices.ravel(), self._tf.int64))

  def take(self) -> np.ndarray:
    """Returns the images u8[batch_images, H, W, 3] of the next batch."""
    images: np.ndarray = next(self._iterator)
    return images

  def close(self) -> None:
    """Stops the pipeline."""
    self._finalizer()


class TfDataSource(HostSource):
  """A source that reads and decodes with tf.data, ahead of the consumer.

  tf.data's threads run no Python and draw no random numbers, so a run may end at any moment.
  """

  def __init__(
    self, split: Split, data_config: DataConfig, sampler: PairSampler, single_sampler: SingleSampler
  ) -> None:
    """Initializes the source; the arguments are those of `Source`.

    Raises:
      ImportError: TensorFlow is missing.
      UnsupportedFormatError: it cannot decode some of the images.
    """
    super().__init__(split, data_config, sampler, single_sampler)
    self._tf = import_tensorflow()
    with ThreadPoolExecutor(data_config.decode_threads) as pool:
      self._headers = list(pool.map(read_header, split.paths))
    pairs = zip(split.paths, self._headers, strict=True)
    others = [printable(path) for path, header in pairs if header.format in PILLOW_FORMATS]
    if others:
      raise UnsupportedFormatError(f'TensorFlow cannot decode {len(others)} BMP or WebP images ({summarize(others)})')
    self._encoded_paths = np.array([os.fsencode(path) for path in split.paths], object)
    self._data_config = data_config

  def _images(self, indices: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    indices = iter(indices)
    first = next(indices, None)
    if first is None:
      return
    pipeline = _Pipeline(self._tf, self._encoded_paths, self._headers, self._data_config, first.size)
    waiting: collections.deque[np.ndarray] = collections.deque()
    try:
      for batch in itertools.chain([first], indices):
        pipeline.put(batch)
        waiting.append(batch)
        if len(waiting) > pipeline.batches_ahead:
          yield self._take(pipeline, waiting.popleft())
      while waiting:
        yield self._take(pipeline, waiting.popleft())
    finally:
      pipeline.close()

  def _take(self, pipeline: _Pipeline, indices: np.ndarray) -> np.ndarray:
    """Returns the next batch, whose indices were put before; raises UserError if a file cannot be read."""
    try:
      images = pipeline.take()
    except self._tf.errors.OpError:
      for i in indices.ravel():  # TensorFlow's error does not name the file
        read_image(self._paths[i], self._image_size_hw)
      raise
    return images.reshape(*indices.shape, *self._image_size_hw, 3)
