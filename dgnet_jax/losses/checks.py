"""What all losses do at their public edge: shapes are checked, sums are taken in float32 or better."""

import jax.numpy as jnp

from dgnet_jax.types import Array


def full_precision(x: Array) -> Array:
  """`x` in float32, or in its own dtype where that is finer; bfloat16 sums would lose the loss's digits."""
  return jnp.asarray(x).astype(jnp.promote_types(x.dtype, jnp.float32))


def example_mean(x: Array) -> Array:
  """f[B, ...] -> f[B], the mean over all axes but the first."""
  return full_precision(x).reshape(x.shape[0], -1).mean(axis=1)


def example_sum(x: Array) -> Array:
  """f[B, ...] -> f[B], the sum over all axes but the first."""
  return full_precision(x).reshape(x.shape[0], -1).sum(axis=1)
