"""The Frechet distance between two sets of feature vectors, each seen as a Gaussian (Heusel et al., arXiv 1706.08500).

All in float64. Means and covariances are gathered batch by batch, so memory does not grow with the number of images.
"""

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg

Floats = np.ndarray[Any, np.dtype[np.floating]]


@dataclasses.dataclass(frozen=True)
class Gaussian:
  """count: vectors seen. mean: f64[D]. covariance: f64[D, D], unbiased (divided by count - 1)."""

  count: int
  mean: np.ndarray
  covariance: np.ndarray

  @property
  def full_rank_possible(self) -> bool:
    """Whether there are enough vectors to span the space; with fewer the distance says more of their number."""
    return self.count > len(self.mean)


class RunningGaussian:
  """Mean and covariance of vectors that come in batches, by the pairwise update of Chan et al. (1983).

  Args:
    dimensions: D.
  """

  def __init__(self, dimensions: int) -> None:
    self.count = 0
    self._mean = np.zeros(dimensions)
    self._scatter = np.zeros((dimensions, dimensions))  # sum of outer products of deviations from the mean

  def add(self, features: Floats) -> None:
    """Takes a batch in.

    Args:
      features: f[N, D], finite; any floating-point type.

    Raises:
      ValueError: of another form, or not finite.
    """
    if features.ndim != 2 or features.shape[1] != len(self._mean):
      raise ValueError(f'{features.shape=}; expected [N, {len(self._mean)}]')
    if not np.isfinite(features).all():
      raise ValueError('features that are not finite')
    if not len(features):
      return
    wide = features.astype(np.float64)
    total = self.count + len(wide)
    mean = wide.mean(axis=0)
    shift = mean - self._mean
    # The last row is what the batch's mean differs by from that of all before.
    rows = np.vstack([wide - mean, shift * np.sqrt(self.count * len(wide) / total)])
    self._scatter += rows.T @ rows
    self._mean += shift * (len(wide) / total)
    self.count = total

  def gaussian(self) -> Gaussian:
    """What was seen so far.

    Raises:
      ValueError: fewer than two vectors, which have no covariance.
    """
    if self.count < 2:
      raise ValueError(f'a covariance needs two vectors, not {self.count}')
    return Gaussian(self.count, self._mean.copy(), self._scatter / (self.count - 1))


def _factor(covariance: np.ndarray) -> np.ndarray:
  """A matrix f64[D, rank] whose product with its transpose is the covariance; rounding errors are no rank."""
  values, vectors = scipy.linalg.eigh(covariance)
  kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
  return vectors[:, kept] * np.sqrt(values[kept])


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
  """The squared Frechet (2-Wasserstein) distance, what is called FID of Inception's features.

  |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). With C1 = A A' and C2 = B B' the last trace is the sum of the singular
  values of A' B: real by construction and exact for covariances without full rank, where a root of the product is
  neither.

  Args:
    first: of D dimensions.
    second: likewise.

  Returns:
    At least 0.

  Raises:
    ValueError: the dimensions differ, or numbers are not finite.
  """
  if first.mean.shape != second.mean.shape:
    raise ValueError(f'{first.mean.shape=} {second.mean.shape=}')
  if not all(np.isfinite(x).all() for one in (first, second) for x in (one.mean, one.covariance)):
    raise ValueError('means or covariances that are not finite')
  shift = first.mean - second.mean
  cross = _factor(first.covariance).T @ _factor(second.covariance)
  overlap = scipy.linalg.svdvals(cross).sum() if cross.size else 0.0
  distance = shift @ shift + np.trace(first.covariance) + np.trace(second.covariance) - 2 * overlap
  return max(0.0, float(distance))  # equal sets come out some 1e-14 below
