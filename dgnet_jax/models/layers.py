"""The building blocks that the networks share: convolution layers, normalisations, residual blocks, pooling.

Images and maps are NHWC. Every layer computes in `dtype`; None means the type of its input and parameters, so float64
in gives float64 out. Statistics are never computed in less than float32.
"""

from collections.abc import Callable
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.models.convolutions import unpadded_convolution, upsampled_convolution
from dgnet_jax.models.non_local import NonLocalBlock
from dgnet_jax.models.norms import (
  NORM_EPSILON,
  Activation,
  BatchStatisticsNorm,
  LayerNorm,
  adaptive_instance_norm,
  instance_norm,
  widened,
)
from dgnet_jax.types import Array

BATCH_NORM_MOMENTUM = 0.1  # share of a new batch in the running statistics, release fact 32

Initializer = Callable[..., Array]
fan_in_normal = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')  # kaiming, gain sqrt 2: release fact 34
fan_out_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
LEARNT_NORMS = {'layer': LayerNorm, 'batch': BatchStatisticsNorm}
# Of a layer's input, its convolution, and AdaIN's parameters. Series and parallel make AdaIN a residual adapter of the
# convolution (Rebuffi et al., arXiv 1705.08045 and 1803.10082) and normalise the sum (read off the goldens).
ADAPTIVE = {
  'adaptive': lambda x, y, scale, shift: adaptive_instance_norm(y, scale, shift),
  'series': lambda x, y, scale, shift: instance_norm(y + adaptive_instance_norm(y, scale, shift)),
  'parallel': lambda x, y, scale, shift: instance_norm(y + adaptive_instance_norm(x, scale, shift)),
}


class _Convolution(nn.Module):
  """The padded convolution with bias of a ConvLayer."""

  features: int
  kernel_size: int
  stride: int
  dilation: int
  doubled: bool
  padding: str
  kernel_init: Initializer
  dtype: jnp.dtype | None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    size = self.kernel_size
    kernel = self.param('kernel', self.kernel_init, (size, size, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    if self.doubled:
      return upsampled_convolution(x, kernel, self.padding) + bias
    if margin := self.dilation * (size - 1) // 2:
      mode = {'reflect': 'reflect', 'zero': 'constant'}[self.padding]
      x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode=mode)
    return unpadded_convolution(x, kernel, self.stride, self.dilation) + bias


class ConvLayer(nn.Module):
  """Padding, convolution with bias, normalisation, activation, in the release's order (fact 23).

  norm is none, instance, layer, batch or one of `ADAPTIVE`; those take `scale` and `shift` [N, features] with the call.
  doubled: of the map enlarged two times (nearest neighbour); 5x5 only. padding: reflect or zero.
  """

  features: int
  kernel_size: int
  stride: int = 1
  dilation: int = 1
  doubled: bool = False
  norm: str = 'none'
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  kernel_init: Initializer = fan_in_normal
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
    y = _Convolution(
      self.features,
      self.kernel_size,
      self.stride,
      self.dilation,
      self.doubled,
      self.padding,
      self.kernel_init,
      self.dtype,
      name='conv',
    )(x)
    if self.norm == 'instance':
      y = instance_norm(y)
    elif self.norm in LEARNT_NORMS:
      y = LEARNT_NORMS[self.norm](name='norm')(y)
    elif self.norm in ADAPTIVE:
      if scale is None or shift is None:
        raise ValueError(f'norm {self.norm} needs scale and shift')
      y = ADAPTIVE[self.norm](x, y, scale, shift)
    return Activation(self.activation, name='activation')(y)


class ResidualBlock(nn.Module):
  """Two 3x3 layers added to the input, no activation after the sum (release fact 23).

  With an adaptive norm, `scale` and `shift` [N, 2 * features] hold the first layer's parameters, then the second's.
  non_local: the sum goes through a non-local block.
  """

  features: int
  norm: str = 'none'
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  non_local: bool = False
  kernel_init: Initializer = fan_in_normal
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
    residual = x
    for i in range(2):
      part = slice(i * self.features, (i + 1) * self.features)
      layer = ConvLayer(
        self.features,
        3,
        norm=self.norm,
        activation=self.activation if i == 0 else 'none',
        padding=self.padding,
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        name=f'conv_{i}',
      )
      x = layer(x, None if scale is None else scale[:, part], None if shift is None else shift[:, part])
    x = residual + x
    return NonLocalBlock(self.kernel_init, self.dtype, name='non_local')(x) if self.non_local else x


@dataclasses.dataclass(frozen=True)
class BatchNormMode:
  """How BatchNorm normalises.

  calls: the batch axis holds [B, calls] flattened; each call is one forward of the release, with statistics of its
  own, folded into the running statistics in order (release fact 3). group: examples of a call that share statistics;
  0 is all of them, larger batches are cut in runs of `group` whose statistics are averaged for the running ones.
  running: normalise by the running statistics and change nothing.
  """

  running: bool = True
  calls: int = 1
  group: int = 0


class BatchNorm(nn.Module):
  """BatchNorm over groups of a batch (release fact 32): biased variance to normalise, unbiased to remember."""

  scale_init: Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode) -> Array:
    channels = x.shape[-1]
    scale = self.param('scale', self.scale_init, (channels,))
    bias = self.param('bias', nn.initializers.zeros, (channels,))
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,))
    running_variance = self.variable('batch_stats', 'var', jnp.ones, (channels,))
    wide = widened(x)
    if mode.running:
      factor = scale * jax.lax.rsqrt(running_variance.value + NORM_EPSILON)
      return (wide * factor + (bias - running_mean.value * factor)).astype(x.dtype)

    examples = x.shape[0] // mode.calls
    group = mode.group if 0 < mode.group < examples else examples
    if examples % group:
      raise ValueError(f'a BatchNorm call of {examples} examples cannot be cut in groups of {group}')
    grouped = wide.reshape(examples // group, group, mode.calls, -1, channels)  # chunk, example, call, pixel, channel
    mean = grouped.mean((1, 3), keepdims=True)
    centred = grouped - mean
    variance = jnp.square(centred).mean((1, 3), keepdims=True)
    if not self.is_initializing():
      count = group * grouped.shape[3]
      unbiased = variance * (count / max(count - 1, 1))
      running_mean.value = _fold(running_mean.value, mean.mean((0, 1, 3)))
      running_variance.value = _fold(running_variance.value, unbiased.mean((0, 1, 3)))
    normalised = centred * (jax.lax.rsqrt(variance + NORM_EPSILON) * scale) + bias
    return normalised.reshape(x.shape).astype(x.dtype)


def _fold(running: Array, calls: Array) -> Array:
  """The running statistic [C] after one update for each row of `calls` [calls, C], in order."""
  calls = jax.lax.stop_gradient(calls)
  keep = 1.0 - BATCH_NORM_MOMENTUM
  number = calls.shape[0]
  shares = BATCH_NORM_MOMENTUM * keep ** jnp.arange(number - 1, -1, -1, dtype=calls.dtype)
  return keep**number * running + shares @ calls


def _highest(x: Array) -> Array:
  """The maximum of f[N, H, W, C] over height and width, by index.

  The gradient of `jnp.max` asks where x equals its maximum; XLA may compute x anew for that question, rounded
  otherwise, and the gradient of the places that no longer match is lost (8 % of it in a small network on CPU).
  """
  flat = x.reshape(x.shape[0], -1, x.shape[-1])
  where = jnp.argmax(jax.lax.stop_gradient(flat), axis=1, keepdims=True)
  return jnp.take_along_axis(flat, where, axis=1)[:, 0]


def _average(x: Array) -> Array:
  return x.mean((1, 2))


def adaptive_pool(x: Array, parts: int, kind: str) -> Array:
  """Pools [N, H, W, C] to `parts` horizontal stripes, [N, parts, C]; windows as in torch's adaptive pooling.

  Args:
    x: f[N, H, W, C].
    parts: number of stripes, 1..H.
    kind: max or avg.
  """
  height = x.shape[1]
  pool = {'max': _highest, 'avg': _average}[kind]
  return jnp.stack([pool(x[:, i * height // parts : -(-(i + 1) * height // parts)]) for i in range(parts)], axis=1)
