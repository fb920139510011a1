"""Reductions that keep the batch axis."""

from dgnet_jax.types import Array, at_least_float32


def mean_per_example(x: Array) -> Array:
  """f[B, ...] -> f[B], the mean over all axes but the first, in float32 or wider."""
  return at_least_float32(x).reshape(x.shape[0], -1).mean(axis=1)


def sum_per_example(x: Array) -> Array:
  """f[B, ...] -> f[B], the sum over all axes but the first, in float32 or wider."""
  return at_least_float32(x).reshape(x.shape[0], -1).sum(axis=1)
