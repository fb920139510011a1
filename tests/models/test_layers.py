"""Layers that the released configuration does not use, computed by hand; the goldens cover them too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.layers import ConvLayer, ResidualBlock
from dgnet_jax.models.non_local import NonLocalBlock
from dgnet_jax.models.norms import Activation, BatchStatisticsNorm, LayerNorm, standardize

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64(x64):
  """Every test runs in float64."""


def test_prelu_has_a_trainable_slope_below_zero():
  variables = Activation('prelu').init(jax.random.key(0), jnp.ones(1))
  assert variables['params']['slope'].shape == (1,)
  out = Activation('prelu').apply({'params': {'slope': jnp.array([0.5])}}, jnp.array([-2.0, 3.0]))
  np.testing.assert_array_equal(out, [-1.0, 3.0])


def test_batch_statistics_norm_normalises_over_the_batch():
  x = RNG.normal(3.0, 2.0, size=(4, 3, 2, 5))
  params = {'scale': jnp.full(5, 2.0), 'bias': jnp.full(5, -1.0)}
  out = np.asarray(BatchStatisticsNorm().apply({'params': params}, x))
  np.testing.assert_allclose(out.mean((0, 1, 2)), -1.0, atol=1e-12)
  np.testing.assert_allclose(out.std((0, 1, 2)), 2.0, rtol=1e-4)
  np.testing.assert_allclose(out, 2 * np.asarray(standardize(jnp.asarray(x), (0, 1, 2))) - 1)


def test_non_local_block_equals_attention_by_hand():
  x = RNG.normal(size=(2, 3, 2, 8))
  block = NonLocalBlock(jax.nn.initializers.normal(1.0))
  params = block.init(jax.random.key(0), x)['params']
  np.testing.assert_array_equal(block.apply({'params': params}, x), x)  # scale is 0
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


def test_conv_layer_rejects_an_unknown_norm():
  with pytest.raises(ValueError, match="'spectral': must be one of none, instance, layer, batch, adaptive"):
    ConvLayer(2, 3, norm='spectral').init(jax.random.key(0), jnp.ones((1, 4, 4, 2)))


def test_conv_layer_with_an_adaptive_norm_needs_its_parameters():
  with pytest.raises(ValueError, match='needs scale and shift'):
    ConvLayer(2, 3, norm='adaptive').init(jax.random.key(0), jnp.ones((1, 4, 4, 2)))


def test_non_local_residual_block_applies_attention_to_the_sum():
  x = RNG.normal(size=(1, 4, 4, 8))
  block = ResidualBlock(8, non_local=True)
  params = block.init(jax.random.key(0), x)['params']
  own = {name: value for name, value in params.items() if name != 'non_local'}
  plain = ResidualBlock(8).apply({'params': own}, x)
  np.testing.assert_array_equal(block.apply({'params': params}, x), plain)
  params['non_local']['scale'] = jnp.ones(1)
  attended = NonLocalBlock(jax.nn.initializers.zeros).apply({'params': params['non_local']}, plain)
  np.testing.assert_allclose(block.apply({'params': params}, x), attended, rtol=1e-12)


def test_layer_norm_of_a_constant_map_has_a_finite_gradient():
  norm = LayerNorm()
  x = jnp.ones((1, 2, 2, 3))
  params = norm.init(jax.random.key(0), x)
  gradient = jax.grad(lambda x: (norm.apply(params, x) * jnp.arange(3)).sum())(x)
  assert jnp.isfinite(gradient).all()
