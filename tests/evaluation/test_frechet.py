"""The Frechet distance against closed forms and a matrix square root in float64."""

import numpy as np
import pytest
import scipy.linalg

from dgnet_jax.evaluation.frechet import Gaussian, RunningGaussian, frechet_distance

RNG = np.random.default_rng(0)


def gaussian_of(features, batch_size=7):
  running = RunningGaussian(features.shape[1])
  for start in range(0, len(features), batch_size):
    running.add(features[start : start + batch_size])
  return running.gaussian()


def known(mean, covariance):
  return Gaussian(1000, np.asarray(mean, float), np.asarray(covariance, float))


def by_matrix_root(a, b):
  """The textbook formula, from all vectors at once."""
  shift = a.mean(0) - b.mean(0)
  first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
  return shift @ shift + np.trace(first) + np.trace(second) - 2 * np.trace(scipy.linalg.sqrtm(first @ second)).real


@pytest.mark.parametrize('batch_size', [1, 7, 40, 100])
def test_running_statistics_equal_those_of_all_vectors(batch_size):
  features = RNG.normal(1000.0, 2.0, (40, 5)) @ RNG.normal(
    size=(5, 5)
  )  # far from 0, where sums of squares lose precision
  gaussian = gaussian_of(features, batch_size)
  assert gaussian.count == 40
  np.testing.assert_allclose(gaussian.mean, features.mean(0), rtol=1e-13)
  np.testing.assert_allclose(gaussian.covariance, np.cov(features, rowvar=False), rtol=1e-9)


def test_float32_is_summed_in_float64():
  features = (4096 + RNG.normal(size=(3000, 2))).astype(np.float32)
  np.testing.assert_allclose(gaussian_of(features).covariance, np.cov(features.astype(float), rowvar=False), rtol=1e-9)


def test_distance_of_commuting_gaussians():
  a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 0.25, 2.0])
  expected = 25 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
  rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
  first = known([1, 2, 3], rotation @ np.diag(a) @ rotation.T)
  second = known([1, 5, 7], rotation @ np.diag(b) @ rotation.T)
  assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)
  assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-12)


def test_distance_of_gaussians_that_do_not_commute():
  """The trace of the square root of a 2x2 matrix M is sqrt(tr M + 2 sqrt(det M))."""
  a, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
  root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
  assert frechet_distance(known([0, 0], a), known([3, 4], b)) == pytest.approx(25 + 5 + 6 - 2 * root, rel=1e-12)


def test_distance_of_a_scaled_and_shifted_set():
  """The distance of x and s x + t is |m - s m - t|^2 + (1 - s)^2 tr C."""
  features = RNG.normal(size=(50, 6))
  first, second = gaussian_of(features), gaussian_of(3 * features + 1)
  shift = first.mean - 3 * first.mean - 1
  assert frechet_distance(first, second) == pytest.approx(shift @ shift + 4 * np.trace(first.covariance), rel=1e-12)


def test_distance_equals_the_matrix_root_formula():
  a, b = RNG.normal(size=(300, 20)), RNG.normal(size=(200, 20)) @ RNG.normal(size=(20, 20))
  assert frechet_distance(gaussian_of(a), gaussian_of(b)) == pytest.approx(by_matrix_root(a, b), rel=1e-10)


def test_distance_of_equal_sets_is_zero():
  gaussian = gaussian_of(RNG.normal(size=(100, 30)))
  assert 0 <= frechet_distance(gaussian, gaussian) < 1e-10


def test_distance_is_exact_with_fewer_vectors_than_dimensions():
  """With C = X' X, the trace of the matrix root is the sum of the singular values of X1 X2'."""
  a, b = RNG.normal(size=(8, 60)), RNG.normal(1.0, 3.0, size=(12, 60))
  first, second = gaussian_of(a), gaussian_of(b)
  assert not first.full_rank_possible and gaussian_of(a[:, :7]).full_rank_possible
  x, y = (a - a.mean(0)) / np.sqrt(7), (b - b.mean(0)) / np.sqrt(11)
  shift = a.mean(0) - b.mean(0)
  expected = shift @ shift + (x**2).sum() + (y**2).sum() - 2 * scipy.linalg.svdvals(x @ y.T).sum()
  assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)
  assert 0 <= frechet_distance(first, first) < 1e-10


def test_distance_of_a_set_without_variance():
  point, cloud = gaussian_of(np.ones((4, 3))), gaussian_of(RNG.normal(size=(50, 3)))
  assert frechet_distance(point, point) == 0
  expected = ((cloud.mean - 1) ** 2).sum() + np.trace(cloud.covariance)
  assert frechet_distance(point, cloud) == pytest.approx(expected, rel=1e-12)


def test_invalid_arguments_are_refused():
  running = RunningGaussian(3)
  running.add(np.zeros((0, 3)))
  with pytest.raises(ValueError, match=r'expected \[N, 3\]'):
    running.add(np.zeros((2, 4)))
  with pytest.raises(ValueError, match='not finite'):
    running.add(np.array([[1, 2, np.nan]]))
  with pytest.raises(ValueError, match='at least two vectors, not 0'):
    running.gaussian()
  with pytest.raises(ValueError, match='shape'):
    frechet_distance(known([0], [[1]]), known([0, 0], np.eye(2)))
  with pytest.raises(ValueError, match='not finite'):
    frechet_distance(known([np.inf], [[1]]), known([0], [[1]]))
