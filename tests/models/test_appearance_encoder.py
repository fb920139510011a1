"""The appearance code's scaling to unit length, pooling and necks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.appearance_encoder import CODE_EPSILON, AppearanceEncoder, unit_length
from dgnet_jax.models.batch_norm import BatchNormMode


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


def outputs_of(**options):
  """A tiny appearance encoder in training, its variables and outputs for six images."""
  network = AppearanceEncoder(
    **{'stage_sizes': (1, 1), 'width': 2, 'last_stride': 1, 'pool': 'max', 'num_parts': 2, 'head_width': 5}
    | {'num_identities': 4, 'primary_dropout': 0.5, 'fine_dropout': 0.5}
    | options
  )
  image, mode = jax.random.normal(jax.random.key(1), (6, 32, 16, 3)), BatchNormMode(running=False)
  variables = network.init(jax.random.key(0), image, mode, True)
  arguments = variables, image, mode
  output, _ = network.apply(
    *arguments, deterministic=False, rngs={'dropout': jax.random.key(2)}, mutable=['batch_stats']
  )
  return variables, output


def test_bnneck_classifies_the_normalized_pooled_feature():
  variables, output = outputs_of(neck='bnneck')
  head = variables['params']['primary_head']
  assert {name: set(layer) for name, layer in head.items()} == {'norm': {'scale'}, 'classifier': {'kernel'}}
  pooled = np.asarray(output.primary_metric_feature, np.float64)
  np.testing.assert_allclose(pooled, output.code.reshape(6, 16, 2).max(-1), rtol=1e-6)  # of both stripes
  expected = (pooled - pooled.mean(0)) / np.sqrt(pooled.var(0) + 1e-5)
  np.testing.assert_allclose(output.primary_feature, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(output.primary_logits, expected @ head['classifier']['kernel'], rtol=1e-3, atol=1e-6)
  np.testing.assert_array_equal(output.fine_metric_feature, output.primary_metric_feature)
  assert output.fine_feature.shape == output.primary_feature.shape == (6, 16)


def test_metric_feature_of_the_release_is_the_bottleneck_before_its_norm():
  variables, output = outputs_of()
  pooled = output.code.reshape(6, 16, 2).max(-1)
  for name in ('primary', 'fine'):
    bottleneck = variables['params'][f'{name}_head']['bottleneck']
    metric = np.asarray(getattr(output, f'{name}_metric_feature'))
    np.testing.assert_allclose(metric, pooled @ bottleneck['kernel'] + bottleneck['bias'], rtol=1e-4, atol=1e-5)
    expected = (metric - metric.mean(0)) / np.sqrt(metric.var(0) + 1e-5)
    np.testing.assert_allclose(getattr(output, f'{name}_feature'), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('neck', 'size'), [('release', 5), ('bnneck', 16)])
@pytest.mark.parametrize(('style', 'lead'), [('normal', (6,)), ('PCB', (6, 2))])
def test_every_style_has_a_metric_feature(style, lead, neck, size):
  _, output = outputs_of(style=style, neck=neck, pool='gem')
  assert output.primary_metric_feature.shape == output.primary_feature.shape == (*lead, size)
  assert output.fine_metric_feature is None and output.fine_logits is None


def test_one_exponent_pools_code_and_heads():
  variables, output = outputs_of(pool='gem', neck='bnneck')
  assert variables['params']['pool']['free_exponent'].shape == (1,)
  cubes = output.code.reshape(6, 16, 2) ** 3
  np.testing.assert_allclose(output.primary_metric_feature, np.cbrt(cubes.mean(-1)), rtol=1e-4)
