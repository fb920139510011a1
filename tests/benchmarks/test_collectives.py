"""What devices exchange, in programs whose exchanges are known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from dgnet_jax.benchmarks.collectives import Exchange, exchanges
from dgnet_jax.models.batch_norm import BatchNorm, BatchNormMode
from dgnet_jax.sharding import batch_sharding, make_mesh, replicated

ROWS, COLUMNS = 16, 6

pytestmark = pytest.mark.skipif(jax.device_count() != 8, reason='programs for eight devices')


class Network(nn.Module):
  """A layer, and BatchNorm over groups of images."""

  group: int

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(COLUMNS, name='layer')(x)
    return BatchNorm(name='norm')(x, BatchNormMode(running=False, group=self.group))


def program(function, *arguments, outputs):
  return exchanges(jax.jit(function, out_shardings=outputs).lower(*arguments).compile().as_text())


def sharded(shape):
  return jax.device_put(jnp.ones(shape), batch_sharding(make_mesh()))


def exchanges_of_network(group):
  network = Network(group)
  variables = network.init(jax.random.key(0), jnp.ones((ROWS, COLUMNS)))

  def loss(params, x):
    y, statistics = network.apply(variables | {'params': params}, x, mutable='batch_stats')
    return (y**3).mean(), statistics

  gradient = jax.value_and_grad(loss, has_aux=True)
  params = jax.device_put(variables['params'], replicated(make_mesh()))
  found = program(gradient, params, sharded((ROWS, COLUMNS)), outputs=replicated(make_mesh()))
  assert {exchange.kind for exchange in found} == {'all-reduce'}
  sizes = {}
  for exchange in found:
    sizes.setdefault(exchange.purpose, []).append(exchange.num_bytes)
  return sizes


def test_gradients_and_statistics_of_groups_within_devices():
  """Gradients of kernel, bias, scale and offset; the running statistics; the loss."""
  sizes = exchanges_of_network(group=ROWS // 8)
  assert sum(sizes['gradients']) == 4 * COLUMNS * (COLUMNS + 1)
  assert sum(sizes['norm layers, backward']) == 4 * 2 * COLUMNS
  assert sum(sizes['BatchNorm statistics']) == 4 * 2 * COLUMNS
  assert sizes['losses and others'] == [4]


def test_statistics_of_the_batch_are_also_exchanged_in_the_backward_pass():
  grouped, whole = exchanges_of_network(group=ROWS // 8), exchanges_of_network(group=0)
  assert sum(whole['gradients']) == sum(grouped['gradients'])
  assert sum(whole['norm layers, backward']) > sum(grouped['norm layers, backward'])


def test_gathered_array_counts_what_a_device_gives():
  (exchange,) = program(lambda x: x + 1, sharded((ROWS, COLUMNS)), outputs=replicated(make_mesh()))
  assert (exchange.kind, exchange.type) == ('all-gather', 'f32[2,6]')
  assert exchange.num_bytes == 4 * ROWS // 8 * COLUMNS


def test_combined_and_asynchronous_collectives():
  """As XLA prints them for other backends: layouts with tiles, a pair of start and done."""
  text = """
  %a.1 = bf16[3,5]{1,0:T(8,128)(2,1)} fusion(%p), metadata={op_name="jit(step)/transpose(jvp(term))/Net/layer/dot"}
  %b = pred[] compare(%p, %q), direction=LT
  %start = (bf16[3,5]{1,0:T(8,128)}, /*index=1*/pred[]) all-reduce-start(%a.1, %b), metadata={op_name="jit(step)/x"}
  ROOT %done = (bf16[3,5]{1,0}, pred[]) all-reduce-done(%start), metadata={op_name="jit(step)/x"}
"""
  first, second = exchanges(text)
  assert first == Exchange('all-reduce', 'start', 'bf16[3,5]', 30, 'transpose(jvp(term))/Net/layer/dot')
  assert second == Exchange('all-reduce', 'start', 'pred[]', 1, 'x')
  assert (first.purpose, second.purpose) == ('gradients', 'losses and others')
