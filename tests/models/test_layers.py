"""Kinds of layers that the released configuration does not use, by hand; the goldens hold their agreement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.layers import ResidualBlock
from dgnet_jax.models.non_local import NonLocalBlock
from dgnet_jax.models.norms import Activation, BatchStatisticsNorm, standardize

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64(x64):
  """Float64 for every test here."""


def test_prelu_learns_the_slope_below_zero():
  variables = Activation('prelu').init(jax.random.key(0), jnp.ones(1))
  assert variables['params']['slope'].shape == (1,)
  out = Activation('prelu').apply({'params': {'slope': jnp.array([0.5])}}, jnp.array([-2.0, 3.0]))
  np.testing.assert_array_equal(out, [-1.0, 3.0])


def test_batch_statistics_norm_couples_the_batch():
  x = RNG.normal(3.0, 2.0, size=(4, 3, 2, 5))
  params = {'scale': jnp.full(5, 2.0), 'bias': jnp.full(5, -1.0)}
  out = np.asarray(BatchStatisticsNorm().apply({'params': params}, x))
  np.testing.assert_allclose(out.mean((0, 1, 2)), -1.0, atol=1e-12)
  np.testing.assert_allclose(out.std((0, 1, 2)), 2.0, rtol=1e-4)
  np.testing.assert_allclose(out, 2 * np.asarray(standardize(jnp.asarray(x), (0, 1, 2))) - 1)


def test_non_local_block_by_hand():
  x = RNG.normal(size=(2, 3, 2, 8))
  block = NonLocalBlock(jax.nn.initializers.normal(1.0))
  params = block.init(jax.random.key(0), x)['params']
  np.testing.assert_array_equal(block.apply({'params': params}, x), x)  # it starts as nothing
  params = params | {'scale': jnp.array([0.7])}
  flat = x.reshape(2, 6, 8)
  query, key, value = (flat @ params[n]['kernel'][0, 0] + params[n]['bias'] for n in ('query', 'key', 'value'))
  assert query.shape == (2, 6, 1)
  expected = np.zeros_like(flat)
  for example in range(2):
    for pixel in range(6):
      scores = np.exp(key[example] @ query[example, pixel])
      expected[example, pixel] = scores @ value[example] / scores.sum()
  np.testing.assert_allclose(block.apply({'params': params}, x), x + 0.7 * expected.reshape(x.shape), rtol=1e-12)


def test_non_local_residual_block_sends_the_sum_through_it():
  x = RNG.normal(size=(1, 4, 4, 8))
  block = ResidualBlock(8, non_local=True)
  params = block.init(jax.random.key(0), x)['params']
  own = {name: value for name, value in params.items() if name != 'non_local'}
  plain = ResidualBlock(8).apply({'params': own}, x)
  np.testing.assert_array_equal(block.apply({'params': params}, x), plain)
  params['non_local']['scale'] = jnp.ones(1)
  attended = NonLocalBlock(jax.nn.initializers.zeros).apply({'params': params['non_local']}, plain)
  np.testing.assert_allclose(block.apply({'params': params}, x), attended, rtol=1e-12)
