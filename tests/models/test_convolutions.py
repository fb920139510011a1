"""Convolutions against their definitions, in float64, and their form on each platform."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.convolutions import residual_convolution, unpadded_convolution, upsampled_convolution


@pytest.fixture(autouse=True)
def _float64(x64):
  """Every test runs in float64."""


def _random(*shape):
  return np.random.default_rng(0).normal(size=shape)


def _upsample_then_convolve(x, kernel, padding='reflect'):
  upsampled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
  mode = {'reflect': 'reflect', 'zero': 'constant'}[padding]
  padded = jnp.pad(upsampled, ((0, 0), (2, 2), (2, 2), (0, 0)), mode=mode)
  return jax.lax.conv_general_dilated(padded, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


@pytest.mark.parametrize('padding', ['reflect', 'zero'])
@pytest.mark.parametrize('size', [(2, 2), (2, 3), (5, 4), (16, 8)])
def test_upsampled_convolution_equals_upsampling_padding_and_convolution(size, padding):
  x, kernel = _random(2, *size, 3), _random(5, 5, 3, 4)
  np.testing.assert_allclose(
    upsampled_convolution(x, kernel, padding), _upsample_then_convolve(x, kernel, padding), rtol=1e-12, atol=1e-12
  )


def test_upsampled_convolution_has_the_same_gradients():
  x, kernel, weight = _random(2, 4, 3, 3), _random(5, 5, 3, 4), _random(2, 8, 6, 4)

  def gradients(convolution):
    return jax.grad(lambda x, kernel: (convolution(x, kernel) * weight).sum(), argnums=(0, 1))(x, kernel)

  for actual, expected in zip(gradients(upsampled_convolution), gradients(_upsample_then_convolve), strict=True):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_unpadded_convolution_is_the_sum_over_taps(stride, dilation):
  x, kernel = _random(1, 9, 8, 2), _random(3, 3, 2, 3)
  height, width = ((size - 2 * dilation - 1) // stride + 1 for size in (9, 8))
  expected = np.zeros((1, height, width, 3))
  for i in range(3):
    for j in range(3):
      window = x[:, i * dilation :: stride, j * dilation :: stride][:, :height, :width]
      expected += window @ kernel[i, j]
  np.testing.assert_allclose(unpadded_convolution(x, kernel, stride, dilation), expected, rtol=1e-12)


def test_unpadded_convolution_has_the_gradients_of_a_convolution():
  """First and second order: the gradient penalty differentiates convolutions twice."""
  x, kernel, weight = _random(2, 6, 5, 3), _random(3, 3, 3, 4), _random(2, 4, 3, 4)

  def derivatives(convolution):
    def loss(x, kernel):
      return (jnp.tanh(convolution(x, kernel)) * weight).sum()

    def penalty(x, kernel):
      return (jax.grad(loss)(x, kernel) ** 2).sum()

    return jax.grad(loss, argnums=(0, 1))(x, kernel), jax.jit(jax.grad(penalty, argnums=(0, 1)))(x, kernel)

  def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  jax.tree.map(
    lambda actual, expected: np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12),
    derivatives(unpadded_convolution),
    derivatives(plain),
  )


def _settings(x, kernel):
  return {'dimension_numbers': jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC'))}


@pytest.mark.parametrize('stride', [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize(
  ('size', 'kernel_size'), [((4, 2), (3, 3)), ((1, 1), (3, 3)), ((2, 3), (3, 4)), ((7, 6), (1, 1))]
)
def test_residual_convolution_equals_a_convolution_with_its_gradients(size, kernel_size, stride):
  x, kernel = _random(2, *size, 3), _random(*kernel_size, 3, 4)
  margins = ((1, 1), (2, 0))

  def gradients_and_output(convolution):
    def loss(x, kernel):
      y = convolution(x, kernel, stride, margins, **_settings(x, kernel))
      return (y**2).sum(), y

    return jax.grad(loss, argnums=(0, 1), has_aux=True)(x, kernel)

  jax.tree.map(
    lambda actual, expected: np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12),
    gradients_and_output(residual_convolution),
    gradients_and_output(jax.lax.conv_general_dilated),
  )


@pytest.mark.parametrize(
  'settings',
  [
    {'rhs_dilation': (2, 1)},
    {'lhs_dilation': (1, 2)},
    {'feature_group_count': 3},
    {'batch_group_count': 2},
    {'preferred_element_type': np.dtype('float64')},
  ],
)
def test_residual_convolution_honours_other_settings(settings):
  x, kernel = _random(2, 3, 2, 3), _random(3, 3, 3 // settings.get('feature_group_count', 1), 6)
  x, kernel = x.astype(np.float32), kernel.astype(np.float32)
  settings = settings | _settings(x, kernel)
  margins = ((2, 2), (1, 1))
  actual = residual_convolution(x, kernel, (1, 1), margins, **settings)
  expected = jax.lax.conv_general_dilated(x, kernel, (1, 1), margins, **settings)
  assert actual.dtype == expected.dtype
  np.testing.assert_array_equal(actual, expected)


def test_residual_convolution_takes_named_padding_and_other_layouts():
  x, kernel = _random(2, 2, 2, 3), _random(3, 3, 3, 4)
  actual = residual_convolution(x, kernel, (1, 1), 'SAME', **_settings(x, kernel))
  np.testing.assert_array_equal(actual, jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', **_settings(x, kernel)))
  channels_first = np.moveaxis(x, -1, 1), kernel.transpose(3, 2, 0, 1)  # the default of lax
  margins = ((1, 1), (1, 1))
  np.testing.assert_array_equal(
    residual_convolution(*channels_first, (1, 1), margins),
    jax.lax.conv_general_dilated(*channels_first, (1, 1), margins),
  )


def test_residual_convolution_passes_precision_to_the_matrix_product():
  x, kernel = _random(2, 2, 2, 3), _random(3, 3, 3, 4)

  def convolve(x):
    return residual_convolution(
      x, kernel, (1, 1), ((1, 1), (1, 1)), **_settings(x, kernel), precision=jax.lax.Precision.HIGHEST
    )

  text = _program(convolve, x, platforms=['cpu'])
  assert re.search(r'dot_general.*precision = \[HIGHEST, HIGHEST\]', text)


def _program(function, *inputs, platforms):
  """StableHLO of a function, lowered for other platforms than this host's as well."""
  return jax.export.export(jax.jit(function), platforms=platforms)(*inputs).mlir_module()


def _output_widths(program):
  """The width of every convolution's output f64[N, h, w, O]."""
  return [int(width) for width in re.findall(r'stablehlo\.convolution.*-> tensor<\d+x\d+x(\d+)x\d+xf64>', program)]


def _pointwise_residual(x, kernel):
  return residual_convolution(x, kernel, (1, 1), ((0, 0), (0, 0)), **_settings(x, kernel))


class TestPlatforms:
  """The form for CPU is chosen for the platform that a program runs on, not for the host that traces it."""

  def unpadded(self, x):
    return unpadded_convolution(x, _random(3, 3, 3, 4))

  def small(self, x):
    kernel = _random(3, 3, 3, 4)
    return residual_convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **_settings(x, kernel))

  @pytest.mark.parametrize('convolution', [unpadded_convolution, _pointwise_residual])
  def test_a_pointwise_convolution_is_a_product_of_matrices_on_cpu_only(self, convolution):
    def gradient(kernel):
      return jax.grad(lambda kernel: convolution(_random(2, 6, 5, 3), kernel).sum())(kernel)

    cpu, cuda = (_program(gradient, _random(1, 1, 3, 4), platforms=[platform]) for platform in ('cpu', 'cuda'))
    assert 'stablehlo.dot_general' not in cuda and 'stablehlo.convolution' not in cpu
    # Of matrices: XLA would copy a map to transposed order to sum over its other axes.
    assert re.findall(r'stablehlo\.dot_general.* : \(([^)]*)\)', cpu) == ['tensor<60x4xf64>, tensor<60x3xf64>']

  def test_unpadded_convolution_has_a_spare_column_on_cpu_only(self):
    for platform, width in {'cpu': 4, 'cuda': 3, 'tpu': 3}.items():
      assert _output_widths(_program(self.unpadded, _random(2, 6, 5, 3), platforms=[platform])) == [width]

  @pytest.mark.parametrize(('size', 'is_small'), [((4, 2), True), ((1, 8), True), ((3, 3), False)])
  def test_a_map_smaller_than_the_kernel_is_a_matrix_product_on_cpu_only(self, size, is_small):
    x = _random(2, *size, 3)
    cpu, cuda = (_program(self.small, x, platforms=[platform]) for platform in ('cpu', 'cuda'))
    assert ('stablehlo.dot_general' in cpu, 'stablehlo.convolution' in cpu) == (is_small, not is_small)
    assert 'stablehlo.dot_general' not in cuda and 'stablehlo.convolution' in cuda

  def test_a_program_for_several_platforms_has_both_forms(self):
    unpadded = _program(self.unpadded, _random(2, 6, 5, 3), platforms=['cpu', 'cuda'])
    assert set(_output_widths(unpadded)) == {3, 4}
    small = _program(self.small, _random(2, 4, 2, 3), platforms=['cpu', 'cuda'])
    assert 'stablehlo.dot_general' in small and 'stablehlo.convolution' in small

  @pytest.mark.parametrize('name', ['unpadded', 'small'])
  def test_a_program_for_several_platforms_computes_the_same(self, name):
    function, x = getattr(self, name), _random(2, 4, 4, 3)[:, :, : 2 if name == 'small' else 4]
    exported = jax.export.export(jax.jit(function), platforms=['cpu', 'cuda'])(x)
    np.testing.assert_array_equal(exported.call(x), function(x))

  def test_only_the_form_of_one_platform_is_compiled(self):
    x = _random(2, 4, 2, 3)
    compiled = jax.jit(jax.grad(lambda x: (self.small(x) ** 2).sum())).lower(x).compile().as_text()
    assert 'conditional(' not in compiled and 'convolution(' not in compiled
