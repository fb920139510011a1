"""Pooling by hand."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from dgnet_jax.models.pooling import GEM_MINIMUM, StripePool, average_pool, gem_exponent, max_pool, stripe_pool


def test_average_pool_does_not_count_the_padding():
  x = jnp.arange(6.0).reshape(1, 2, 3, 1)  # 0 1 2 / 3 4 5
  expected = [[2.0, 2.5, 3.0], [2.0, 2.5, 3.0]]  # both rows, two or three columns
  np.testing.assert_allclose(average_pool(x)[0, ..., 0], expected)
  np.testing.assert_allclose(average_pool(jnp.ones((1, 5, 4, 2))), 1.0)


def test_max_pool_ignores_the_padding():
  x = -jnp.arange(6.0).reshape(1, 2, 3, 1)
  np.testing.assert_array_equal(max_pool(x)[0, ..., 0], [[0, 0, -1], [0, 0, -1]])


def test_stride_and_padding_set_the_output_size():
  x = jnp.ones((1, 8, 4, 2))
  assert max_pool(x, stride=2).shape == average_pool(x, stride=2).shape == (1, 4, 2, 2)
  assert max_pool(x, stride=2, padding=0).shape == (1, 3, 1, 2)


@pytest.mark.parametrize(
  ('kind', 'expected'), [('max', [[3.0, 13.0], [5.0, 15.0]]), ('avg', [[1.5, 11.5], [3.5, 13.5]])]
)
def test_stripes_overlap_if_they_do_not_divide_the_height(kind, expected):
  """Two stripes of three rows both have the middle one, as in torch's adaptive pooling."""
  x = jnp.stack([jnp.arange(6.0), 10 + jnp.arange(6.0)], axis=-1).reshape(1, 3, 2, 2)
  np.testing.assert_array_equal(stripe_pool(x, 2, kind)[0], expected)


def test_max_pooling_of_stripes_has_one_gradient_among_equal_maxima():
  gradient = jax.grad(lambda x: stripe_pool(x, 1, 'max').sum())(jnp.ones((1, 2, 2, 1)))
  np.testing.assert_array_equal(gradient.ravel(), [1, 0, 0, 0])


class TestGeneralizedMean:
  def test_by_hand(self):
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(stripe_pool(x, 1, 'gem'), [[[25 ** (1 / 3)]]], rtol=1e-6)  # (1 + 8 + 27 + 64) / 4
    stripes = [[[4.5 ** (1 / 3)], [45.5 ** (1 / 3)]]]
    np.testing.assert_allclose(stripe_pool(x, 2, 'gem'), stripes, rtol=1e-6)

  def test_is_between_mean_and_maximum(self):
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 2, (2, 6, 3, 5)), jnp.float32)
    np.testing.assert_allclose(stripe_pool(x, 2, 'gem', 1.0), stripe_pool(x, 2, 'avg'), rtol=1e-5)
    np.testing.assert_allclose(stripe_pool(x, 2, 'gem', 3000.0), stripe_pool(x, 2, 'max'), rtol=2e-3)

  @pytest.mark.parametrize('exponent', [1.0, 3.0, 30.0])
  @pytest.mark.parametrize('value', [-1.0, 0.0, 1e4])
  def test_extreme_maps_and_exponents_have_finite_gradients(self, exponent, value):
    x = jnp.full((1, 4, 2, 3), value).at[0, 0, 0, 0].set(1.0)
    pooled, gradients = jax.value_and_grad(lambda *args: stripe_pool(args[0], 1, 'gem', args[1]).sum(), (0, 1))(
      x, jnp.array([exponent])
    )
    assert np.isfinite(pooled) and pooled >= 3 * GEM_MINIMUM * 0.99
    assert all(np.isfinite(gradient).all() for gradient in gradients)

  @pytest.mark.usefixtures('x64')
  def test_gradients_by_finite_differences(self):
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 2, (2, 3, 2, 2)))
    jax.test_util.check_grads(lambda x, p: stripe_pool(x, 2, 'gem', p), (x, jnp.array([2.5])), order=1)

  @pytest.mark.usefixtures('x64')
  def test_bfloat16_is_computed_in_float32(self):
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 2, (2, 16, 8, 4)), jnp.bfloat16)
    pooled = stripe_pool(x, 1, 'gem')
    assert pooled.dtype == jnp.bfloat16
    exact = (np.asarray(x, np.float64) ** 3).mean((1, 2), keepdims=True)[:, 0] ** (1 / 3)
    np.testing.assert_allclose(np.asarray(pooled, np.float64), exact, rtol=2**-8)

  def test_exponent_stays_above_the_mean(self):
    """With an exponent below 0, maps that are 0 somewhere would be constants, and networks would learn nothing."""
    free = jnp.array([-1e3, -3.0, 0.0, 3.0, 1e3])
    exponent, slope = jax.vmap(jax.value_and_grad(gem_exponent))(free)
    assert (exponent >= 1).all() and (jnp.diff(exponent) > 0).all() and (slope[1:] > 0).all()
    x = jnp.zeros((1, 2, 2, 1)).at[0, 0, 0, 0].set(1.0)
    pooled = StripePool('gem').apply({'params': {'free_exponent': jnp.array([-1e3])}}, x, 1)
    np.testing.assert_allclose(pooled, [[[0.25]]], rtol=1e-4)

  def test_exponent_is_a_parameter_of_all_stripes(self):
    pool, x = StripePool('gem'), jnp.ones((1, 4, 2, 3))
    variables = pool.init(jax.random.key(0), x, 2)
    np.testing.assert_allclose(gem_exponent(variables['params']['free_exponent']), [3.0], rtol=1e-6)
    assert not StripePool('max').init(jax.random.key(0), x, 2)
