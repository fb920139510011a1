"""BatchNorm with statistics per group of a batch."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.models.norms import NORM_EPSILON
from dgnet_jax.types import Array, at_least_float32

MOMENTUM = 0.1  # weight of a new batch in the running statistics (release fact 32)


@dataclasses.dataclass(frozen=True)
class BatchNormMode:
  """Selects the statistics that BatchNorm uses.

  Attributes:
    running: normalize with the running statistics and leave them unchanged.
    calls: number of forward passes of the release that the batch axis, [B, calls] flattened, stands for. Each has its
      own statistics, and these update the running ones in order (release fact 3).
    group: number of a call's examples that share statistics; 0 means all. A larger batch is split into consecutive
      groups, whose statistics are averaged before they update the running ones.
  """

  running: bool = True
  calls: int = 1
  group: int = 0


class BatchNorm(nn.Module):
  """BatchNorm over groups of a batch: normalizes with the biased variance, tracks the unbiased (release fact 32).

  Attributes:
    use_bias: train a bias for each channel.
  """

  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode) -> Array:
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (channels,))
    bias = self.param('bias', nn.initializers.zeros, (channels,)) if self.use_bias else jnp.zeros_like(scale)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,))
    running_variance = self.variable('batch_stats', 'var', jnp.ones, (channels,))
    wide = at_least_float32(x)
    if mode.running:
      factor = scale * jax.lax.rsqrt(running_variance.value + NORM_EPSILON)
      return (wide * factor + (bias - running_mean.value * factor)).astype(x.dtype)

    examples = x.shape[0] // mode.calls
    group = mode.group if 0 < mode.group < examples else examples
    if examples % group:
      raise ValueError(f'{examples} examples per BatchNorm call are not a multiple of the group size {group}')
    grouped = wide.reshape(examples // group, group, mode.calls, -1, channels)  # group, example, call, pixel, channel
    mean = grouped.mean((1, 3), keepdims=True)
    centered = grouped - mean
    variance = jnp.square(centered).mean((1, 3), keepdims=True)
    if not self.is_initializing():
      count = group * grouped.shape[3]
      unbiased = variance * (count / max(count - 1, 1))
      running_mean.value = _updated(running_mean.value, mean.mean((0, 1, 3)))
      running_variance.value = _updated(running_variance.value, unbiased.mean((0, 1, 3)))
    normalized = centered * (jax.lax.rsqrt(variance + NORM_EPSILON) * scale) + bias
    return normalized.reshape(x.shape).astype(x.dtype)


def _updated(running: Array, statistics: Array) -> Array:
  """Returns the running statistic f[C] after an update with each row of `statistics` f[calls, C], in order."""
  statistics = jax.lax.stop_gradient(statistics)
  keep = 1.0 - MOMENTUM
  calls = statistics.shape[0]
  weights = MOMENTUM * keep ** jnp.arange(calls - 1, -1, -1, dtype=statistics.dtype)
  return keep**calls * running + weights @ statistics
