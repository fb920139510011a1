"""The count of operations, on programs whose operations are known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from dgnet_jax.benchmarks.costs import cost_of, peak_flops
from dgnet_jax.benchmarks.operations import Origin, flops_by_origin

IMAGE, KERNEL = jnp.ones((2, 8, 6, 3)), jnp.ones((3, 3, 3, 5))
CONVOLUTION = 2 * (2 * 8 * 6 * 5) * (3 * 3 * 3)


def convolve(image, kernel, **settings):
  padding = ((1, 1), (1, 1))
  return jax.lax.conv_general_dilated(
    image, kernel, (1, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **settings
  )


def count(function, *arguments):
  return sum(flops_by_origin(jax.jit(function).trace(*arguments).jaxpr.jaxpr).values())


def test_matrix_products_and_convolutions_are_counted():
  assert count(lambda a, b: jnp.sin(a @ b), jnp.ones((7, 4)), jnp.ones((4, 9))) == 2 * 7 * 4 * 9
  assert count(convolve, IMAGE, KERNEL) == CONVOLUTION


def test_zeros_in_a_dilated_image_do_not_count():
  assert count(lambda x, k: convolve(x, k, lhs_dilation=(2, 2)), IMAGE, KERNEL) == pytest.approx(
    2 * (2 * 15 * 11 * 5) * 27 / 4
  )


def test_gradients_cost_what_the_products_cost():
  def loss(image, kernel):
    return (convolve(image, kernel) ** 2).sum()

  # The gradient's window slides over the image without the rows and columns of padding.
  assert count(jax.grad(loss, argnums=1), IMAGE, KERNEL) == 2 * CONVOLUTION


def test_what_no_output_depends_on_does_not_count():
  def unused(x, k):
    jax.jit(convolve)(x, k)
    return jax.jit(lambda x, k: (convolve(x, k), x + 1))(x, k)[1]

  assert count(unused, IMAGE, KERNEL) == 0


def test_loops_and_branches():
  def scanned(x, k):
    return jax.lax.scan(lambda carry, _: (carry + convolve(x, k).sum(), None), 0.0, None, length=4)[0]

  def branches(flag, x, k):
    return jax.lax.cond(flag, lambda: convolve(x, k), lambda: convolve(x, k) + convolve(2 * x, k))

  assert count(scanned, IMAGE, KERNEL) == 4 * CONVOLUTION
  assert count(branches, True, IMAGE, KERNEL) == 2 * CONVOLUTION


def test_operations_by_part_network_and_direction():
  layer = nn.Dense(5)
  params = layer.init(jax.random.key(0), jnp.ones((7, 4)))

  def loss(params, x):
    with jax.named_scope('judging'):
      judged = jax.jit(layer.apply)(params, x).sum()
    return judged + (x @ jnp.ones((4, 2))).sum()

  traced = jax.jit(jax.value_and_grad(loss)).trace(params, jnp.ones((7, 4)))
  product = 2 * 7 * 4 * 5
  assert flops_by_origin(traced.jaxpr.jaxpr) == {
    Origin('judging', 'Dense', False): product,
    Origin('judging', 'Dense', True): product,
    Origin('', '', False): 2 * 7 * 4 * 2,
  }


def test_cost_of_a_compiled_program():
  side = 64
  traced = jax.jit(jnp.matmul).trace(jnp.ones((side, side)), jnp.ones((side, side)))
  cost = cost_of(traced, traced.lower().compile(), 1.5)
  assert cost.compile_seconds == 1.5 and cost.product_flops * jax.device_count() == 2 * side**3
  assert cost.peak_bytes >= 3 * 4 * side**2


def test_peak_is_a_rate():
  assert 1e9 < peak_flops(jnp.dtype('float32')) < 1e18
