"""Pooling of maps f[N, H, W, C]: 3x3 windows, and horizontal stripes."""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.models.plain_operations import are_plain
from dgnet_jax.types import Array

_WINDOW = (3, 3)


def max_pool(x: Array, *, stride: int = 1, padding: int = 1) -> Array:
  """Computes the maxima over 3x3 windows of f[N, H, W, C]."""
  margins = ((padding, padding), (padding, padding))
  if are_plain():  # jax2onnx 0.13 to 0.17 ignores such margins
    x, margins = jnp.pad(x, ((0, 0), *margins, (0, 0)), constant_values=-jnp.inf), ((0, 0), (0, 0))
  pooled = nn.max_pool(x, window_shape=_WINDOW, strides=(stride, stride), padding=margins)  # type: ignore[no-untyped-call]
  return cast(Array, pooled)


def average_pool(x: Array, *, stride: int = 1) -> Array:
  """Computes the means over 3x3 windows of f[N, H, W, C], padded by 1; the padding does not count."""
  margins = ((1, 1), (1, 1))
  pooled = nn.avg_pool(x, _WINDOW, (stride, stride), margins, count_include_pad=False)  # type: ignore[no-untyped-call]
  return cast(Array, pooled)


def stripe_pool(x: Array, num_stripes: int, kind: str) -> Array:
  """Pools horizontal stripes; their borders are those of torch's adaptive pooling.

  Args:
    x: f[N, H, W, C].
    num_stripes: number of stripes, in [1, H].
    kind: max or avg.

  Returns:
    f[N, num_stripes, C].
  """
  height = x.shape[1]
  pool = {'max': _global_max, 'avg': _global_mean}[kind]
  borders = [(i * height // num_stripes, -(-(i + 1) * height // num_stripes)) for i in range(num_stripes)]
  return jnp.stack([pool(x[:, start:end]) for start, end in borders], axis=1)


def _global_max(x: Array) -> Array:
  """Returns the maximum of f[N, H, W, C] over height and width, f[N, C].

  Gathered by index, because the gradient of `jnp.max` goes where x equals its maximum. XLA may recompute x for that
  comparison with other rounding, and the gradient of positions that no longer match is lost (8 % of it in a small
  network on CPU).
  """
  flat = x.reshape(x.shape[0], -1, x.shape[-1])
  index = jnp.argmax(jax.lax.stop_gradient(flat), axis=1, keepdims=True)
  return jnp.take_along_axis(flat, index, axis=1)[:, 0]


def _global_mean(x: Array) -> Array:
  return x.mean((1, 2))
