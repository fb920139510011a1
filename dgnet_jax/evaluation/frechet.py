"""The Frechet distance between two sets of feature vectors, each modeled as a Gaussian (Heusel et al., 1706.08500).

Everything is computed in float64. Means and covariances are accumulated batch by batch, so memory does not grow with
the number of images.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
import scipy.linalg

from dgnet_jax.evaluation.embeddings import Floats

Doubles = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Gaussian:
  """Statistics of feature vectors.

  count: number of vectors. mean: f64[D]. covariance: f64[D, D], unbiased (divided by count - 1).
  """

  count: int
  mean: Doubles
  covariance: Doubles

  @property
  def full_rank_possible(self) -> bool:
    """True if there are more vectors than dimensions; otherwise the distance depends mostly on their number."""
    return self.count > len(self.mean)


class RunningGaussian:
  """Mean and covariance of vectors that arrive in batches, by the pairwise update of Chan et al. (1983).

  Args:
    dimensions: D.
  """

  def __init__(self, dimensions: int) -> None:
    self.count = 0
    self._mean = np.zeros(dimensions)
    self._scatter = np.zeros((dimensions, dimensions))  # sum of outer products of deviations from the mean

  def add(self, features: Floats) -> None:
    """Adds a batch.

    Args:
      features: f[N, D], finite; any floating-point type.

    Raises:
      ValueError: the shape does not fit, or features are not finite.
    """
    if features.ndim != 2 or features.shape[1] != len(self._mean):
      raise ValueError(f'{features.shape=}; expected [N, {len(self._mean)}]')
    if not np.isfinite(features).all():
      raise ValueError('features are not finite')
    if not len(features):
      return
    doubles = features.astype(np.float64)
    total = self.count + len(doubles)
    mean = doubles.mean(axis=0)
    shift = mean - self._mean
    # The last row corrects for the distance between the batch's mean and the mean so far.
    rows = np.vstack([doubles - mean, shift * np.sqrt(self.count * len(doubles) / total)])
    self._scatter += rows.T @ rows
    self._mean += shift * (len(doubles) / total)
    self.count = total

  def gaussian(self) -> Gaussian:
    """Returns the statistics of all vectors so far.

    Raises:
      ValueError: there are fewer than two vectors, so the covariance is undefined.
    """
    if self.count < 2:
      raise ValueError(f'a covariance needs at least two vectors, not {self.count}')
    return Gaussian(self.count, self._mean.copy(), self._scatter / (self.count - 1))


def _factor(covariance: Doubles) -> Doubles:
  """Factors C = A A' into A, f64[D, rank]; eigenvalues within rounding error of zero are dropped."""
  values, vectors = scipy.linalg.eigh(covariance)
  kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
  factor: Doubles = vectors[:, kept] * np.sqrt(values[kept])
  return factor


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
  """Computes the squared Frechet (2-Wasserstein) distance; with Inception's features, the FID.

  |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). With C1 = A A' and C2 = B B', the last trace is the sum of the singular
  values of A' B. That is real by construction and exact for singular covariances; a matrix root of the product is
  neither.

  Args:
    first: D dimensions.
    second: D dimensions.

  Returns:
    The distance, at least 0.

  Raises:
    ValueError: the dimensions differ, or a mean or covariance is not finite.
  """
  if first.mean.shape != second.mean.shape:
    raise ValueError(f'{first.mean.shape=} {second.mean.shape=}')
  if not all(np.isfinite(x).all() for one in (first, second) for x in (one.mean, one.covariance)):
    raise ValueError('a mean or covariance is not finite')
  shift = first.mean - second.mean
  cross = _factor(first.covariance).T @ _factor(second.covariance)
  overlap = scipy.linalg.svdvals(cross).sum() if cross.size else 0.0
  distance = shift @ shift + np.trace(first.covariance) + np.trace(second.covariance) - 2 * overlap
  return max(0.0, float(distance))  # rounding can make equal sets negative, by about 1e-14
