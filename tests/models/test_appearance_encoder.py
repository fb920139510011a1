"""The appearance code's scaling to unit length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.appearance_encoder import CODE_EPSILON, unit_length


def test_unit_length_divides_by_the_norm():
  np.testing.assert_allclose(unit_length(jnp.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


def test_unit_length_of_a_zero_code_has_a_finite_gradient():
  weights = jnp.array([[1.0, -2.0], [1.0, -2.0]])
  gradient = jax.grad(lambda code: (weights * unit_length(code)).sum())(jnp.array([[0.0, 0.0], [3.0, 4.0]]))
  np.testing.assert_allclose(gradient[0], weights[0] / CODE_EPSILON, rtol=1e-6)
  # By hand: (weights - u <weights, u>) / 5 with the unit vector u.
  np.testing.assert_allclose(gradient[1], [(1 + 0.6) / 5, (-2 + 0.8) / 5], rtol=1e-5)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(('dtype', 'rtol'), [('float64', 1e-12), ('float32', 1e-6), ('bfloat16', 2**-8)])
def test_unit_length_keeps_the_dtype_and_computes_the_norm_in_float32_or_wider(dtype, rtol):
  """In bfloat16 only the result is rounded (to 8 bits), not the norm as well."""
  code = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4096)), dtype)
  scaled = unit_length(code)
  assert scaled.dtype == dtype
  wide = np.asarray(code, np.float64)
  exact = wide / (np.linalg.norm(wide, axis=1, keepdims=True) + CODE_EPSILON)
  np.testing.assert_allclose(np.asarray(scaled, np.float64), exact, rtol=rtol)
