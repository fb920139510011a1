"""Normalization of maps f[N, H, W, C], and activations. Statistics are computed in float32 or wider."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.types import Array, at_least_float32

LEAKY_SLOPE = 0.2  # release fact 29
PRELU_SLOPE = 0.25  # initial value, shared by all channels
NORM_EPSILON = 1e-5  # release facts 23, 28, 32
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  'leaky_relu': lambda x: jax.nn.leaky_relu(x, LEAKY_SLOPE),
  'relu': jax.nn.relu,
  'selu': jax.nn.selu,
  'tanh': jnp.tanh,
  'none': lambda x: x,
}


def standardize(x: Array, axes: tuple[int, ...]) -> Array:
  """Normalizes to zero mean and unit (biased) variance over `axes`."""
  wide = at_least_float32(x)
  centered = wide - wide.mean(axes, keepdims=True)
  variance = jnp.square(centered).mean(axes, keepdims=True)
  return (centered * jax.lax.rsqrt(variance + NORM_EPSILON)).astype(x.dtype)


def instance_norm(x: Array) -> Array:
  """Normalizes each channel of each example over height and width (release fact 23)."""
  return standardize(x, (1, 2))


def adaptive_instance_norm(x: Array, scale: Array, shift: Array) -> Array:
  """AdaIN: `scale * instance_norm(x) + shift`, without adding 1 to the scale (release fact 26).

  Args:
    x: f[N, H, W, C].
    scale: f[N, C].
    shift: f[N, C].

  Returns:
    f[N, H, W, C].
  """
  return instance_norm(x) * scale[:, None, None, :].astype(x.dtype) + shift[:, None, None, :].astype(x.dtype)


class Activation(nn.Module):
  """One of `ACTIVATIONS`, or prelu: a leaky ReLU with a trainable slope."""

  kind: str

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.kind != 'prelu':
      return ACTIVATIONS[self.kind](x)
    slope = self.param('slope', nn.initializers.constant(PRELU_SLOPE), (1,))
    return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class InstanceNorm(nn.Module):
  """`instance_norm` with a trainable scale and bias for each channel."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
    return instance_norm(x) * scale.astype(x.dtype) + bias.astype(x.dtype)


class LayerNorm(nn.Module):
  """Normalizes each example over height, width and channels.

  Uses the unbiased standard deviation, with epsilon added to it rather than to the variance (release fact 28).
  """

  @nn.compact
  def __call__(self, x: Array) -> Array:
    uniform = nn.initializers.uniform(1.0)  # release fact 34
    scale = self.param('scale', uniform, x.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
    wide = at_least_float32(x)
    centered = wide - wide.mean((1, 2, 3), keepdims=True)
    count = centered[0].size
    variance = jnp.square(centered).sum((1, 2, 3), keepdims=True) / (count - 1)
    is_zero = variance == 0  # a constant map: the gradient of the square root would be infinite
    deviation = jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, variance)))
    return (centered / (deviation + NORM_EPSILON)).astype(x.dtype) * scale.astype(x.dtype) + bias.astype(x.dtype)


class BatchStatisticsNorm(nn.Module):
  """BatchNorm that always uses batch statistics and tracks none: the discriminator runs only in training."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
    return standardize(x, (0, 1, 2)) * scale.astype(x.dtype) + bias.astype(x.dtype)
