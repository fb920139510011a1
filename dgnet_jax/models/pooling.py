"""Pooling of maps f[N, H, W, C]: 3x3 windows, and horizontal stripes."""

from collections.abc import Callable
import functools
import math
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.models.plain_operations import are_plain
from dgnet_jax.types import Array, at_least_float32

_WINDOW = (3, 3)
GEM_EXPONENT = 3.0  # initial value (Radenovic et al. 2018)
GEM_MINIMUM = 1e-6  # smaller features count as this, so that their logarithm is finite


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


class StripePool(nn.Module):
  """Pools horizontal stripes of f[N, H, W, C]: f[N, num_stripes, C].

  Attributes:
    kind: max, avg, or gem (generalized mean, whose exponent, one for all stripes and channels, is trained; it stays
      above 1, between the mean and the maximum).
  """

  kind: str

  @nn.compact
  def __call__(self, x: Array, num_stripes: int) -> Array:
    if self.kind != 'gem':
      return stripe_pool(x, num_stripes, self.kind)
    # Above 1, whatever the parameter: trained directly by SGD, the exponent can fall below 0, where features that are 0
    # somewhere become constants, and nothing is learned any more.
    free = self.param('free_exponent', nn.initializers.constant(math.log(math.expm1(GEM_EXPONENT - 1))), (1,))
    return stripe_pool(x, num_stripes, self.kind, gem_exponent(free))


def gem_exponent(free: Array) -> Array:
  """Returns the exponent of a generalized mean, above 1, from the parameter that is trained."""
  return 1 + jax.nn.softplus(free)


def stripe_pool(x: Array, num_stripes: int, kind: str, exponent: Array | float = GEM_EXPONENT) -> Array:
  """Pools horizontal stripes; their borders are those of torch's adaptive pooling.

  Args:
    x: f[N, H, W, C].
    num_stripes: number of stripes, in [1, H].
    kind: max, avg or gem.
    exponent: of gem: 1 is the mean, and the larger, the closer to the maximum.

  Returns:
    f[N, num_stripes, C].
  """
  height = x.shape[1]
  pools: dict[str, Callable[[Array], Array]] = {
    'max': _global_max,
    'avg': _global_mean,
    'gem': functools.partial(_generalized_mean, exponent=exponent),
  }
  pool = pools[kind]
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


def _generalized_mean(x: Array, exponent: Array | float) -> Array:
  """Returns the p-th root of the mean of x^p over height and width, f[N, C]; p is the exponent.

  By way of logarithms, in float32 or wider: powers of 1e-6 would be 0 in float32 from p = 7 on, and the gradient of the
  root infinite.
  """
  wide = jnp.maximum(at_least_float32(x), GEM_MINIMUM)
  log_mean = jax.nn.logsumexp(exponent * jnp.log(wide), axis=(1, 2)) - math.log(x.shape[1] * x.shape[2])
  return jnp.exp(log_mean / exponent).astype(x.dtype)
