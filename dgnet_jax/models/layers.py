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
from dgnet_jax.types import Array

LEAKY_SLOPE = 0.2  # release fact 29
NORM_EPSILON = 1e-5  # release facts 23, 28, 32
BATCH_NORM_MOMENTUM = 0.1  # share of a new batch in the running statistics, release fact 32

Initializer = Callable[..., Array]
fan_in_normal = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')  # kaiming, gain sqrt 2: release fact 34
fan_out_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def leaky_relu(x: Array) -> Array:
  return nn.leaky_relu(x, LEAKY_SLOPE)


def _widened(x: Array) -> Array:
  """At least float32, for statistics."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def instance_norm(x: Array) -> Array:
  """Zero mean and unit variance of each example's channels over height and width (release fact 23); [N, H, W, C]."""
  wide = _widened(x)
  centred = wide - wide.mean((1, 2), keepdims=True)
  variance = jnp.square(centred).mean((1, 2), keepdims=True)
  return (centred * jax.lax.rsqrt(variance + NORM_EPSILON)).astype(x.dtype)


def adaptive_instance_norm(x: Array, scale: Array, shift: Array) -> Array:
  """AdaIN: `scale` * instance_norm(x) + `shift`, without a "1 +" (release fact 26); x [N, H, W, C], both [N, C]."""
  return instance_norm(x) * scale[:, None, None, :].astype(x.dtype) + shift[:, None, None, :].astype(x.dtype)


class LayerNorm(nn.Module):
  """Each example over height, width and channels: unbiased deviation, epsilon outside the root (release fact 28)."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    uniform = nn.initializers.uniform(1.0)  # release fact 34
    scale = self.param('scale', uniform, x.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
    wide = _widened(x)
    centred = wide - wide.mean((1, 2, 3), keepdims=True)
    count = centred[0].size
    deviation = jnp.sqrt(jnp.square(centred).sum((1, 2, 3), keepdims=True) / (count - 1))
    return (centred / (deviation + NORM_EPSILON)).astype(x.dtype) * scale.astype(x.dtype) + bias.astype(x.dtype)


class _Convolution(nn.Module):
  """The reflect-padded convolution with bias of a ConvLayer."""

  features: int
  kernel_size: int
  stride: int
  dilation: int
  doubled: bool
  kernel_init: Initializer
  dtype: jnp.dtype | None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    size = self.kernel_size
    kernel = self.param('kernel', self.kernel_init, (size, size, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    if self.doubled:
      return upsampled_convolution(x, kernel) + bias
    if margin := self.dilation * (size - 1) // 2:
      x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode='reflect')
    return unpadded_convolution(x, kernel, self.stride, self.dilation) + bias


class ConvLayer(nn.Module):
  """Reflect padding, convolution with bias, normalisation, activation, in the release's order (fact 23).

  norm is none, instance, layer or adaptive; adaptive takes `scale` and `shift` [N, features] with the call. doubled: of
  the map enlarged two times (nearest neighbour); 5x5 only.
  """

  features: int
  kernel_size: int
  stride: int = 1
  dilation: int = 1
  doubled: bool = False
  norm: str = 'none'
  activation: bool = True
  kernel_init: Initializer = fan_in_normal
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
    x = _Convolution(
      self.features,
      self.kernel_size,
      self.stride,
      self.dilation,
      self.doubled,
      self.kernel_init,
      self.dtype,
      name='conv',
    )(x)
    if self.norm == 'instance':
      x = instance_norm(x)
    elif self.norm == 'layer':
      x = LayerNorm(name='norm')(x)
    elif self.norm == 'adaptive':
      if scale is None or shift is None:
        raise ValueError('adaptive normalisation needs scale and shift')
      x = adaptive_instance_norm(x, scale, shift)
    return leaky_relu(x) if self.activation else x


class ResidualBlock(nn.Module):
  """Two 3x3 layers added to the input, no activation after the sum (release fact 23).

  With norm adaptive, `scale` and `shift` [N, 2 * features] hold the first layer's parameters, then the second's.
  """

  features: int
  norm: str = 'none'
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
        activation=i == 0,
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        name=f'conv_{i}',
      )
      x = layer(x, None if scale is None else scale[:, part], None if shift is None else shift[:, part])
    return residual + x


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
    wide = _widened(x)
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


def enlarge(image: Array, scale: int) -> Array:
  """Nearest-neighbour enlargement of [..., H, W, C] by a whole number."""
  if scale == 1:
    return image
  return jnp.repeat(jnp.repeat(image, scale, axis=-3), scale, axis=-2)
