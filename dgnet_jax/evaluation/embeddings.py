"""Embeddings with the identity and the camera of each image: what rankings and verification compare."""

import dataclasses
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]

FINE_ONLY = -1.0  # the alpha that scores by the second (fine-grained) half alone


class Labels(Protocol):
  """Identity and camera of N images. `Embeddings` has them, and so has a split of a data set.

  identity: i[N]; -1 is junk, which is removed from every ranking; 0 is a distractor, which stays in the gallery and
  matches no query. camera: i[N].
  """

  @property
  def identity(self) -> Integers: ...

  @property
  def camera(self) -> Integers: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
  """Embeddings of N images, labeled as in `Labels`.

  features: f[N, D]. identity: i[N]. camera: i[N].
  """

  features: Floats
  identity: Integers
  camera: Integers

  def __len__(self) -> int:
    return len(self.features)

  def select(self, index: Integers) -> 'Embeddings':
    """Returns the images at `index`, i[M]."""
    return Embeddings(self.features[index], self.identity[index], self.camera[index])

  def with_features(self, features: Floats) -> 'Embeddings':
    """Returns the same images with other features f[N, D]."""
    return dataclasses.replace(self, features=features)


def weighted(query: Embeddings, alpha: float | None) -> Embeddings:
  """Scales query features so that their dot product with the gallery's is the score (release fact 42).

  Args:
    query: Q images, whose features are a primary and a fine-grained half.
    alpha: weight of the second half, at least 0; 0 keeps the first half alone, -1 the second alone. None keeps the
      features as they are, halves or not.

  Returns:
    The same images with weighted features.

  Raises:
    ValueError: alpha is unknown, or the features cannot be halved.
  """
  if alpha is None:
    return query
  half, odd = divmod(query.features.shape[1], 2)
  if odd:
    raise ValueError(f'alpha weights the second half of the features, but {query.features.shape=} is odd')
  scaled = query.features.copy()
  if alpha == FINE_ONLY:
    scaled[:, :half] = 0
  elif alpha >= 0:
    scaled[:, half:] *= alpha
  else:
    raise ValueError(f'{alpha=} is neither a weight of at least 0 nor {FINE_ONLY:g} (the second half alone)')
  return query.with_features(scaled)


def pool_multi_query(query: Embeddings, extra: Embeddings) -> Embeddings:
  """Replaces each query by the mean over all images of its identity and camera, not normalized again (fact 42).

  Args:
    query: Q images.
    extra: M images to average (Market-1501's gt_bbox). A query without one keeps its features.

  Returns:
    The Q queries with pooled features.
  """
  pooled = query.features.copy()
  for i in range(len(query)):
    same = (extra.identity == query.identity[i]) & (extra.camera == query.camera[i])
    if same.any():
      pooled[i] = extra.features[same].mean(axis=0)
  return query.with_features(pooled)
