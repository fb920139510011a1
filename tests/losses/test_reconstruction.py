"""The L1 error and the dissimilarity of structure."""

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dgnet_jax.losses.reconstruction import SSIM_WINDOW, l1_error, structural_dissimilarity


def test_error_by_hand():
  prediction = jnp.array([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
  target = jnp.array([[[1.0, 0.0], [3.0, 8.0]], [[1.0, -1.0], [1.0, 1.0]]])
  np.testing.assert_allclose(l1_error(prediction, target), [1.5, 1.0])


def test_jit_and_vmap_over_streams():
  prediction, target = np.random.default_rng(0).normal(size=(2, 4, 2, 5, 3)).astype(np.float32)
  streams = jax.jit(jax.vmap(l1_error, in_axes=1, out_axes=1))(prediction, target)
  assert streams.shape == (4, 2)
  np.testing.assert_allclose(streams, np.abs(prediction - target).mean((2, 3)), rtol=1e-6)


def test_gradient_reaches_the_prediction_only():
  prediction, target = jnp.array([[1.0, 2.0]]), jnp.array([[2.0, 0.0]])
  to_prediction, to_target = jax.grad(lambda p, t: l1_error(p, t).sum(), argnums=(0, 1))(prediction, target)
  np.testing.assert_allclose(to_prediction, [[-0.5, 0.5]])
  assert not to_target.any()


@pytest.mark.usefixtures('x64')
def test_gradient_equals_finite_differences():
  prediction, target = np.random.default_rng(1).normal(size=(2, 3, 4))
  check_grads(lambda p: l1_error(p, target), (prediction,), order=1)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(
  ('input_dtype', 'output_dtype'), [('float64', 'float64'), ('float32', 'float32'), ('bfloat16', 'float32')]
)
def test_output_is_float32_or_wider(input_dtype, output_dtype):
  assert l1_error(jnp.ones((2, 3), input_dtype), jnp.zeros((2, 3), input_dtype)).dtype == output_dtype


def test_bfloat16_is_averaged_in_float32():
  prediction = jnp.zeros((1, 1000), jnp.bfloat16).at[0, :501].set(1)
  np.testing.assert_allclose(l1_error(prediction, 0 * prediction), [0.501], rtol=1e-6)  # in bfloat16: 0.5


@pytest.mark.parametrize(('prediction', 'target'), [((2, 3), (3, 2)), ((2, 3), (2, 1)), ((), ())])
def test_wrong_shapes_are_reported(prediction, target):
  with pytest.raises(ValueError, match='prediction.shape=.* target.shape='):
    l1_error(jnp.zeros(prediction), jnp.zeros(target))


def ssim_by_loops(x, y):
  """Wang et al. (2004), equation 13, with a 7x7 window inside one-channel images."""
  window = np.outer(SSIM_WINDOW, SSIM_WINDOW)
  values = []
  for row in range(x.shape[0] - 6):
    for column in range(x.shape[1] - 6):
      a, b = (image[row : row + 7, column : column + 7] for image in (x, y))
      mean_a, mean_b = (window * a).sum(), (window * b).sum()
      covariance = (window * (a - mean_a) * (b - mean_b)).sum()
      variances = (window * ((a - mean_a) ** 2 + (b - mean_b) ** 2)).sum()
      luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
      values.append(luminance * (2 * covariance + 9e-4) / (variances + 9e-4))
  return np.mean(values)


@pytest.mark.usefixtures('x64')
class TestStructuralDissimilarity:
  def images(self, *shape):
    return np.random.default_rng(2).uniform(size=(2, *shape))

  def test_equals_the_definition(self):
    x, y = self.images(3, 9, 8, 2)
    expected = [1 - np.mean([ssim_by_loops(a[..., c], b[..., c]) for c in (0, 1)]) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(structural_dissimilarity(x, y), expected, rtol=1e-10)

  def test_window_is_that_of_the_measure_cut_smaller(self):
    assert sum(SSIM_WINDOW) == pytest.approx(1) and len(SSIM_WINDOW) == 7
    assert SSIM_WINDOW[2] / SSIM_WINDOW[3] == pytest.approx(np.exp(-0.5 / 1.5**2))

  def test_punishes_blur_and_not_the_image_itself(self):
    (x, _) = self.images(1, 12, 12, 3)
    blurred = (x + np.roll(x, 1, axis=1) + np.roll(x, 1, axis=2)) / 3
    np.testing.assert_allclose(structural_dissimilarity(x, x), 0, atol=1e-12)
    assert structural_dissimilarity(blurred, x) > 0.2

  def test_gradient_reaches_the_prediction_only(self):
    x, y = self.images(1, 8, 7, 1)
    check_grads(lambda p: structural_dissimilarity(p, y), (x,), order=1)
    assert not jax.grad(lambda t: structural_dissimilarity(x, t).sum())(y).any()

  @pytest.mark.parametrize('shape', [(1, 6, 9, 3), (1, 9, 6, 3), (9, 9, 3)])
  def test_refuses_other_shapes(self, shape):
    with pytest.raises(ValueError, match='at least 7'):
      structural_dissimilarity(jnp.zeros(shape), jnp.zeros(shape))
