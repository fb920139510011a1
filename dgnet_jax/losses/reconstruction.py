"""How far a rebuilt image or code is from what it should be."""

import jax
import jax.numpy as jnp

from dgnet_jax.losses.checks import example_mean, full_precision
from dgnet_jax.types import Array


def l1_error(prediction: Array, target: Array) -> Array:
  """Mean absolute error of each example; no gradient reaches `target`.

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
    raise ValueError(f'{prediction.shape=} {target.shape=}: want the same f32[B, ...]')
  return example_mean(jnp.abs(full_precision(prediction) - full_precision(jax.lax.stop_gradient(target))))
