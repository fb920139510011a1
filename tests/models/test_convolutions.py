"""Convolutions against their plain definitions, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.convolutions import small_map_convolution, unpadded_convolution, upsampled_convolution


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _random(*shape):
  return np.random.default_rng(0).normal(size=shape)


def _doubled_and_convolved(x, kernel, padding='reflect'):
  doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
  mode = {'reflect': 'reflect', 'zero': 'constant'}[padding]
  padded = jnp.pad(doubled, ((0, 0), (2, 2), (2, 2), (0, 0)), mode=mode)
  dimensions = jax.lax.conv_dimension_numbers(padded.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC'))
  return jax.lax.conv_general_dilated(padded, kernel, (1, 1), 'VALID', dimension_numbers=dimensions)


@pytest.mark.parametrize('padding', ['reflect', 'zero'])
@pytest.mark.parametrize('size', [(2, 2), (2, 3), (5, 4), (16, 8)])
def test_upsampled_convolution_is_doubling_padding_and_convolution(size, padding):
  x, kernel = _random(2, *size, 3), _random(5, 5, 3, 4)
  np.testing.assert_allclose(
    upsampled_convolution(x, kernel, padding), _doubled_and_convolved(x, kernel, padding), rtol=1e-12, atol=1e-12
  )


def test_gradients_of_the_upsampled_convolution():
  x, kernel, weight = _random(2, 4, 3, 3), _random(5, 5, 3, 4), _random(2, 8, 6, 4)

  def gradients(convolution):
    return jax.grad(lambda x, kernel: (convolution(x, kernel) * weight).sum(), argnums=(0, 1))(x, kernel)

  for ours, plain in zip(gradients(upsampled_convolution), gradients(_doubled_and_convolved), strict=True):
    np.testing.assert_allclose(ours, plain, rtol=1e-12, atol=1e-12)


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


def _settings(x, kernel):
  return {'dimension_numbers': jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC'))}


@pytest.mark.parametrize('stride', [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize(('size', 'kernel_size'), [((4, 2), (3, 3)), ((1, 1), (3, 3)), ((2, 3), (3, 4))])
def test_small_map_convolution_and_its_gradients(size, kernel_size, stride):
  x, kernel = _random(2, *size, 3), _random(*kernel_size, 3, 4)
  margins = ((1, 1), (2, 0))

  def outputs(convolution):
    def total(x, kernel):
      y = convolution(x, kernel, stride, margins, **_settings(x, kernel))
      return (y**2).sum(), y

    return jax.grad(total, argnums=(0, 1), has_aux=True)(x, kernel)

  plain = outputs(jax.lax.conv_general_dilated)
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12),
    outputs(small_map_convolution),
    plain,
  )


@pytest.mark.parametrize(('size', 'convolves'), [((4, 2), False), ((3, 3), True), ((1, 8), False)])
def test_a_map_smaller_than_the_kernel_is_not_convolved_on_cpu(size, convolves):
  x, kernel = _random(2, *size, 3), _random(3, 3, 3, 4)
  program = jax.make_jaxpr(lambda x: small_map_convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **_settings(x, kernel)))
  assert ('conv_general_dilated' in str(program(x))) == (convolves or jax.default_backend() != 'cpu')


@pytest.mark.parametrize('settings', [{'rhs_dilation': (2, 1)}, {'lhs_dilation': (1, 2)}, {'feature_group_count': 3}])
def test_small_map_convolution_with_what_has_no_short_cut(settings):
  x, kernel = _random(2, 3, 2, 3), _random(3, 3, 3 // settings.get('feature_group_count', 1), 6)
  settings |= _settings(x, kernel)
  margins = ((2, 2), (1, 1))
  np.testing.assert_array_equal(
    small_map_convolution(x, kernel, (1, 1), margins, **settings),
    jax.lax.conv_general_dilated(x, kernel, (1, 1), margins, **settings),
  )
