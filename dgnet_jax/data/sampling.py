"""Which images form batch N: a pure function of (seed, step), so that a resumed run needs no iterator state."""

from collections.abc import Mapping
import functools

import numpy as np

from dgnet_jax.errors import UserError

# The purpose of a random number. With the seed, the epoch or step, the stream and the part it determines the number.
_PAIR_ORDER, _POSITIVE, _SINGLE_ORDER = range(3)
# The parts of an order of identities. An order of images has one part, 0.
_IDENTITIES, _IMAGES, _ROWS = range(1, 4)


def _random_numbers(seed: int, purpose: int, time: int, stream: int, count: int, part: int = 0) -> np.ndarray:
  """Returns u64[count] from a counter-based generator; its raw numbers, unlike numpy's shuffles, never change."""
  return np.random.Philox(key=[seed, purpose], counter=[0, time, stream, part]).random_raw(count)


def _permutation(seed: int, purpose: int, epoch: int, stream: int, count: int, part: int = 0) -> np.ndarray:
  """Returns a random permutation i64[count]."""
  return np.argsort(_random_numbers(seed, purpose, epoch, stream, count, part), kind='stable')


class _EpochSampler:
  """Batches of shuffled epochs. The incomplete batch at the end of an epoch is dropped (release fact 38).

  With `images_per_identity`, batches of identities instead, in rounds: a round shows every identity once, in random
  order, each with as many of its images, at random; those that do not fill a batch are dropped. Rows are in random
  order, so that BatchNorm groups and cross images mix identities as in shuffled batches.
  """

  def __init__(
    self,
    classes: np.ndarray,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    images_per_identity: int = 0,
  ) -> None:
    """Initializes the sampler.

    Args:
      classes: i32[N], class of each image in [0, K).
      batch_size: images per batch over all processes.
      seed: non-negative.
      process_index: index of this process, which selects its contiguous rows of the global batch.
      process_count: number of processes, which share a batch equally.
      images_per_identity: images of each identity in a batch, a divisor of `batch_size`; identities with fewer repeat
        theirs. 0 draws shuffled images.

    Raises:
      UserError: the batch size is not divisible by the number of processes.
    """
    if batch_size % process_count:
      raise UserError(f'a batch of {batch_size} is not divisible by {process_count} processes')
    self.classes = np.asarray(classes, np.int32)
    self.batch_size = batch_size
    self._seed = seed
    rows = batch_size // process_count
    self._rows = slice(process_index * rows, (process_index + 1) * rows)
    # An epoch's permutation serves all its steps; reading ahead may span two epochs, in two streams each.
    self._epoch_order = functools.lru_cache(maxsize=4)(functools.partial(_permutation, seed, count=len(self.classes)))
    self._images_per_identity, self._num_identities = images_per_identity, len(np.unique(self.classes))
    self._round_order = functools.lru_cache(maxsize=4)(self._draw_round)

  @property
  def steps_per_epoch(self) -> int:
    """Batches with as many images as there are: one pass over them, if they are shuffled.

    Raises:
      UserError: there are fewer images than the batch size.
    """
    steps = len(self.classes) // self.batch_size
    if not steps:
      raise UserError(f'{len(self.classes)} training images are fewer than a batch of {self.batch_size}')
    return steps

  def _global_batch(self, purpose: int, step: int, stream: int) -> np.ndarray:
    """Returns the image indices i64[batch_size] of one stream over all processes."""
    if self._images_per_identity:
      return self._identity_batch(purpose, step, stream)
    epoch, position = divmod(step, self.steps_per_epoch)
    start = position * self.batch_size
    order: np.ndarray = self._epoch_order(purpose=purpose, epoch=epoch, stream=stream)
    return order[start : start + self.batch_size]

  def _identity_batch(self, purpose: int, step: int, stream: int) -> np.ndarray:
    """Returns the images of the next identities in their round, like `_global_batch`."""
    per_batch = self.batch_size // self._images_per_identity
    if self._num_identities < per_batch:
      raise UserError(f'{self._num_identities} training identities are fewer than the {per_batch} of a batch')
    number, position = divmod(step, self._num_identities // per_batch)
    images = self._round_order(purpose, number, stream)[position * per_batch : (position + 1) * per_batch].ravel()
    batch: np.ndarray = images[_permutation(self._seed, purpose, step, stream, self.batch_size, _ROWS)]
    return batch

  def _draw_round(self, purpose: int, number: int, stream: int) -> np.ndarray:
    """Returns all identities of a round in order, each with its images: i64[identities, images_per_identity]."""
    shuffled = _permutation(self._seed, purpose, number, stream, len(self.classes), _IMAGES)
    by_identity = shuffled[np.argsort(self.classes[shuffled], kind='stable')]
    _, start, count = np.unique(self.classes[by_identity], return_index=True, return_counts=True)
    rank = np.arange(self._images_per_identity) % count[:, None]  # repeats images where there are fewer
    images = by_identity[start[:, None] + rank]
    drawn: np.ndarray = images[_permutation(self._seed, purpose, number, stream, len(count), _IDENTITIES)]
    return drawn


class PairSampler(_EpochSampler):
  """Two independently drawn streams of images, each with a positive: another image of the same identity.

  The positive is uniform over the other images of the identity; it is the image itself if there is no other.
  """

  def __init__(
    self,
    classes: np.ndarray,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    cameras: np.ndarray | None = None,
    images_per_identity: int = 0,
  ) -> None:
    """Initializes the sampler; see `_EpochSampler`.

    Args:
      classes: i32[N], class of each image in [0, K).
      batch_size: images per batch over all processes.
      seed: non-negative.
      process_index: index of this process.
      process_count: number of processes.
      cameras: i[N], camera of each image. Positives then come from another camera than the image, uniformly, if one
        saw the identity. None disregards cameras, like the release.
      images_per_identity: as in `_EpochSampler`, of each stream; positives are drawn as without it.
    """
    super().__init__(classes, batch_size, seed, process_index, process_count, images_per_identity=images_per_identity)
    # Images sorted by identity, and there by camera if it counts, and the start and length of each identity's run.
    keys = (self.classes,) if cameras is None else (np.asarray(cameras), self.classes)
    self._by_identity = np.lexsort(keys)
    self._count = np.bincount(self.classes)
    self._start = np.cumsum(self._count) - self._count
    # What is not a positive of an image lies together in its identity's run: the image, or all of its camera.
    rank = np.empty(len(self.classes), np.int64)
    rank[self._by_identity] = np.arange(len(self.classes)) - self._start[self.classes[self._by_identity]]
    self._excluded_from, self._num_excluded = rank, np.ones_like(rank)
    if cameras is not None:
      _, first, group, size = np.unique(
        np.stack(keys[::-1])[:, self._by_identity], axis=1, return_index=True, return_inverse=True, return_counts=True
      )
      group = group.ravel()
      several = size[group] < self._count[self.classes[self._by_identity]]
      images = self._by_identity[several]
      self._excluded_from[images] = rank[self._by_identity[first[group[several]]]]
      self._num_excluded[images] = size[group[several]]

  def _positive(self, image: np.ndarray, step: int, stream: int) -> np.ndarray:
    random = _random_numbers(self._seed, _POSITIVE, step, stream, len(image))
    identity = self.classes[image]
    others = (self._count[identity] - self._num_excluded[image]).astype(np.uint64)
    # The upper 32 random bits as a fraction of 2^32, times the number of others, in integer arithmetic.
    rank = ((random >> np.uint64(32)) * others >> np.uint64(32)).astype(np.int64)
    rank += np.where((rank >= self._excluded_from[image]) & (others > 0), self._num_excluded[image], 0)
    positive: np.ndarray = self._by_identity[self._start[identity] + rank]
    return positive

  def global_batch(self, step: int) -> Mapping[str, np.ndarray]:
    """Draws batch `step` of all processes; see `batch`."""
    image = np.stack([self._global_batch(_PAIR_ORDER, step, stream) for stream in (0, 1)], axis=1)
    positive = np.stack([self._positive(image[:, stream], step, stream) for stream in (0, 1)], axis=1)
    return {'image': image, 'positive': positive, 'identity': self.classes[image]}

  def batch(self, step: int) -> Mapping[str, np.ndarray]:
    """Draws this process's rows of batch `step`.

    Returns:
      image and positive: i64[B, 2], indices into `classes`. identity: i32[B, 2], their classes.

    Raises:
      UserError: there are fewer images than the batch size, or fewer identities than a batch has.
    """
    return {name: value[self._rows] for name, value in self.global_batch(step).items()}


class SingleSampler(_EpochSampler):
  """One stream of single images, for training a plain classifier."""

  def batch(self, step: int) -> Mapping[str, np.ndarray]:
    """Draws this process's rows of batch `step`.

    Returns:
      image: i64[B], indices into `classes`. identity: i32[B], their classes.

    Raises:
      UserError: there are fewer images than the batch size, or fewer identities than a batch has.
    """
    image = self._global_batch(_SINGLE_ORDER, step, 0)[self._rows]
    return {'image': image, 'identity': self.classes[image]}
