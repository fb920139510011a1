"""Decoding while training with tf.data, and the choice of a source. TensorFlow is imported when it is used."""

from collections.abc import Iterable, Iterator
import itertools
import os
from typing import Any

import numpy as np

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.images import read_image
from dgnet_jax.data.index import Split
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.data.sources.base import Source
from dgnet_jax.errors import UserError

WINDOW = 512  # batches handed to tf.data at a time


def import_tensorflow() -> Any:
  """TensorFlow, kept off accelerators: it would take the memory that JAX needs.

  Raises:
    UserError: it is not installed.
  """
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # nothing here uses it, and it announces itself on stderr
  try:
    import tensorflow as tf
  except ImportError as error:
    raise UserError(
      "data.loader 'tfdata' needs TensorFlow: install dgnet_jax[tfdata], or set data.loader to 'memory'"
    ) from error
  tf.config.set_visible_devices([], 'GPU')
  tf.config.set_visible_devices([], 'TPU')
  return tf


def decode_and_resize(tf: Any, contents: Any, image_size_hw: tuple[int, int]) -> Any:
  """`read_image` as TensorFlow operations: the same decoder settings, and bicubic resizing to within rounding.

  Args:
    tf: from `import_tensorflow`.
    contents: a scalar string tensor, the bytes of a JPEG or PNG file.
    image_size_hw: height and width to resize to, pixels.

  Returns:
    u8[H, W, 3], RGB.
  """
  height, width = image_size_hw
  # The default, INTEGER_FAST, changes two thirds of the values. Despite its name the operation also reads PNG.
  image = tf.io.decode_jpeg(contents, channels=3, dct_method='INTEGER_ACCURATE')
  # As Pillow does: first the rows, then the columns, with whole numbers in between.
  for size in ((tf.shape(image)[0], width), (height, width)):
    image = tf.image.resize(image, size, method='bicubic', antialias=True)
    image = tf.cast(tf.clip_by_value(tf.floor(image + 0.5), 0, 255), tf.uint8)
  return tf.ensure_shape(image, (height, width, 3))


class TfDataSource(Source):
  """A source that reads and decodes with tf.data, ahead of the consumer.

  tf.data's threads run no Python, so a run may end at any moment, and nothing in them draws random numbers.
  """

  def __init__(
    self, split: Split, data_config: DataConfig, sampler: PairSampler, single_sampler: SingleSampler
  ) -> None:
    """As `Source`; decode_threads and prefetch_batches are read as well.

    Raises:
      UserError: TensorFlow is not installed.
    """
    super().__init__(split, data_config, sampler, single_sampler)
    self._tf = import_tensorflow()
    self._encoded_paths = np.array([os.fsencode(path) for path in split.paths], object)
    self._threads = data_config.decode_threads
    self._prefetch = data_config.prefetch_batches

  def _dataset(self, places: list[np.ndarray]) -> Any:
    """Batches u8[size, H, W, 3] for arrays of places of equal size."""
    tf = self._tf

    @tf.autograph.experimental.do_not_convert
    def read(path: Any) -> Any:
      return decode_and_resize(tf, tf.io.read_file(path), self._image_size_hw)

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = self._threads
    paths = self._encoded_paths[np.stack(places).ravel()]
    dataset = tf.data.Dataset.from_tensor_slices(paths).map(read, num_parallel_calls=self._threads)
    return dataset.batch(places[0].size).prefetch(self._prefetch).with_options(options)

  def _images(self, places: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    places = iter(places)
    while window := list(itertools.islice(places, WINDOW)):
      images = iter(self._dataset(window).as_numpy_iterator())
      for i in window:
        try:
          pixels = next(images)
        except self._tf.errors.OpError:
          self._blame(i)
          raise
        yield pixels.reshape(*i.shape, *self._image_size_hw, 3)

  def _blame(self, places: np.ndarray) -> None:
    """Raises UserError with the name of the first file of a batch that cannot be read (TensorFlow does not tell)."""
    for i in places.ravel():
      read_image(self._paths[i], self._image_size_hw)
