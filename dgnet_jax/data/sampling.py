"""Which images form batch N: a pure function of (seed, step), so that a resumed run needs no iterator state."""

from collections.abc import Mapping
import functools

import numpy as np

from dgnet_jax.errors import UserError

# What a random number is for; together with the seed, the epoch or step, and the stream it names a number for ever.
_PAIR_ORDER, _POSITIVE, _SINGLE_ORDER = range(3)


def _draws(seed: int, purpose: int, time: int, stream: int, count: int) -> np.ndarray:
  """u64[count] from a counter-based generator; its raw numbers, unlike numpy's shuffles, never change."""
  return np.random.Philox(key=[seed, purpose], counter=[0, time, stream, 0]).random_raw(count)


def _order(seed: int, purpose: int, epoch: int, stream: int, count: int) -> np.ndarray:
  """A permutation i64[count]."""
  return np.argsort(_draws(seed, purpose, epoch, stream, count), kind='stable')


class _EpochSampler:
  """Batches of shuffled epochs; the incomplete batch at an epoch's end is dropped, as in the release (fact 38)."""

  def __init__(
    self, classes: np.ndarray, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1
  ) -> None:
    """Args:
      classes: i32[N], class of each image in [0, K).
      batch_size: images per batch over all processes.
      seed: at least 0.
      process_index: which of the equal runs of rows of the global batch to give.
      process_count: how many such runs there are.

    Raises:
      UserError: the batch does not divide among the processes.
    """
    if batch_size % process_count:
      raise UserError(f'a batch of {batch_size} does not divide among {process_count} processes')
    self.classes = np.asarray(classes, np.int32)
    self.batch_size = batch_size
    self._seed = seed
    rows = batch_size // process_count
    self._rows = slice(process_index * rows, (process_index + 1) * rows)
    # An epoch's order serves all its steps; a window of reading ahead may span the end of an epoch.
    self._epoch_order = functools.lru_cache(maxsize=4)(functools.partial(_order, seed, count=len(self.classes)))

  @property
  def steps_per_epoch(self) -> int:
    """Batches in one pass over the images.

    Raises:
      UserError: there are fewer images than a batch takes.
    """
    steps = len(self.classes) // self.batch_size
    if not steps:
      raise UserError(f'{len(self.classes)} training images are fewer than a batch of {self.batch_size}')
    return steps

  def _drawn(self, purpose: int, step: int, stream: int) -> np.ndarray:
    epoch, position = divmod(step, self.steps_per_epoch)
    start = position * self.batch_size
    return self._epoch_order(purpose=purpose, epoch=epoch, stream=stream)[start : start + self.batch_size]


class PairSampler(_EpochSampler):
  """Two independently shuffled streams, and for each image a positive: another one of the same person.

  The positive is uniform over the other images of the person, the image itself where there is no other.
  """

  def __init__(
    self, classes: np.ndarray, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1
  ) -> None:
    """As `_EpochSampler`."""
    super().__init__(classes, batch_size, seed, process_index, process_count)
    # Images ordered by person, where each person's run starts, its length, and each image's place in it.
    self._by_person = np.argsort(self.classes, kind='stable')
    self._count = np.bincount(self.classes)
    self._start = np.cumsum(self._count) - self._count
    self._place = np.empty(len(self.classes), np.int64)
    self._place[self._by_person] = np.arange(len(self.classes)) - self._start[self.classes[self._by_person]]

  def _positive(self, image: np.ndarray, step: int, stream: int) -> np.ndarray:
    draws = _draws(self._seed, _POSITIVE, step, stream, len(image))
    person = self.classes[image]
    others = (self._count[person] - 1).astype(np.uint64)
    # A fraction of 2^32 times the number of others, in whole numbers.
    place = ((draws >> np.uint64(32)) * others >> np.uint64(32)).astype(np.int64)
    place += (place >= self._place[image]) & (others > 0)  # skips the image itself
    return self._by_person[self._start[person] + place]

  def batch(self, step: int) -> Mapping[str, np.ndarray]:
    """This process's rows of batch `step`.

    Returns:
      image and positive: i64[B, 2], places in `classes`. identity: i32[B, 2], their classes.

    Raises:
      UserError: there are fewer images than a batch takes.
    """
    image = np.stack([self._drawn(_PAIR_ORDER, step, stream) for stream in (0, 1)], axis=1)
    positive = np.stack([self._positive(image[:, stream], step, stream) for stream in (0, 1)], axis=1)
    rows = {'image': image, 'positive': positive, 'identity': self.classes[image]}
    return {name: value[self._rows] for name, value in rows.items()}


class SingleSampler(_EpochSampler):
  """One shuffled stream of single images, for training a plain classifier."""

  def batch(self, step: int) -> Mapping[str, np.ndarray]:
    """This process's rows of batch `step`.

    Returns:
      image: i64[B], places in `classes`. identity: i32[B], their classes.

    Raises:
      UserError: there are fewer images than a batch takes.
    """
    image = self._drawn(_SINGLE_ORDER, step, 0)[self._rows]
    return {'image': image, 'identity': self.classes[image]}
