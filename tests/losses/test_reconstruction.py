"""The L1 error."""

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dgnet_jax.losses.reconstruction import l1_error


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
