"""Reconstruction error of images and codes."""

import jax
import jax.numpy as jnp

from dgnet_jax.losses.reductions import mean_per_example
from dgnet_jax.types import Array, at_least_float32


def l1_error(prediction: Array, target: Array) -> Array:
  """Computes the mean absolute error of each example; no gradient reaches `target`.

  Paper: eq. 1, 2 and 5 (self, same-identity and code reconstruction).

  Args:
    prediction: f32[B, ...].
    target: f32[B, ...], same shape.

  Returns:
    f32[B], the mean over all axes but the first.

  Raises:
    ValueError: the shapes differ, or there is no batch axis.
  """
  if prediction.shape != target.shape or not prediction.ndim:
    raise ValueError(f'{prediction.shape=} {target.shape=}: must be equal and have a batch axis')
  return mean_per_example(jnp.abs(at_least_float32(prediction) - at_least_float32(jax.lax.stop_gradient(target))))
