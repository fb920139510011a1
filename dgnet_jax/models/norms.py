"""Normalisations of maps [N, H, W, C] and the activations. Statistics are never computed in less than float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.types import Array

LEAKY_SLOPE = 0.2  # release fact 29
PRELU_SLOPE = 0.25  # initial, one for all channels
NORM_EPSILON = 1e-5  # release facts 23, 28, 32
ACTIVATIONS = {
  'leaky_relu': lambda x: nn.leaky_relu(x, LEAKY_SLOPE),
  'relu': nn.relu,
  'selu': nn.selu,
  'tanh': jnp.tanh,
  'none': lambda x: x,
}


def widened(x: Array) -> Array:
  """At least float32, for statistics."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def standardize(x: Array, axes: tuple[int, ...]) -> Array:
  """Zero mean and unit (biased) variance over `axes`."""
  wide = widened(x)
  centred = wide - wide.mean(axes, keepdims=True)
  variance = jnp.square(centred).mean(axes, keepdims=True)
  return (centred * jax.lax.rsqrt(variance + NORM_EPSILON)).astype(x.dtype)


def instance_norm(x: Array) -> Array:
  """Zero mean and unit variance of each example's channels over height and width (release fact 23); [N, H, W, C]."""
  return standardize(x, (1, 2))


def adaptive_instance_norm(x: Array, scale: Array, shift: Array) -> Array:
  """AdaIN: `scale` * instance_norm(x) + `shift`, without a "1 +" (release fact 26); x [N, H, W, C], both [N, C]."""
  return instance_norm(x) * scale[:, None, None, :].astype(x.dtype) + shift[:, None, None, :].astype(x.dtype)


class Activation(nn.Module):
  """One of `ACTIVATIONS`, or prelu: a leaky ReLU whose slope is learnt."""

  kind: str

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.kind != 'prelu':
      return ACTIVATIONS[self.kind](x)
    slope = self.param('slope', nn.initializers.constant(PRELU_SLOPE), (1,))
    return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class LayerNorm(nn.Module):
  """Each example over height, width and channels: unbiased deviation, epsilon outside the root (release fact 28)."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    uniform = nn.initializers.uniform(1.0)  # release fact 34
    scale = self.param('scale', uniform, x.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
    wide = widened(x)
    centred = wide - wide.mean((1, 2, 3), keepdims=True)
    count = centred[0].size
    deviation = jnp.sqrt(jnp.square(centred).sum((1, 2, 3), keepdims=True) / (count - 1))
    return (centred / (deviation + NORM_EPSILON)).astype(x.dtype) * scale.astype(x.dtype) + bias.astype(x.dtype)


class BatchStatisticsNorm(nn.Module):
  """BatchNorm that always uses the batch, as in a network that is never run but in training; nothing is remembered."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param('scale', nn.initializers.ones, x.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros, x.shape[-1:])
    return standardize(x, (0, 1, 2)) * scale.astype(x.dtype) + bias.astype(x.dtype)
