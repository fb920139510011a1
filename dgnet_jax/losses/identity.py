"""Naming the person in an image."""

import jax
import jax.numpy as jnp

from dgnet_jax.losses.checks import full_precision
from dgnet_jax.types import Array


def identity_cross_entropy(logits: Array, identity: Array) -> Array:
  """Cross-entropy of each example's identity.

  Paper: eq. 3 and 6 (identification of real and of generated images).

  Args:
    logits: f32[B, K], before softmax.
    identity: i32[B], class index in [0, K).

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: the shapes do not fit, or the identities are no integers.
  """
  if logits.ndim != 2 or identity.shape != logits.shape[:1]:
    raise ValueError(f'{logits.shape=} {identity.shape=}: want f32[B, K] and i32[B]')
  if not jnp.issubdtype(identity.dtype, jnp.integer):
    raise ValueError(f'{identity.dtype=}: want integers')
  log_probs = jax.nn.log_softmax(full_precision(logits))
  return -jnp.take_along_axis(log_probs, identity[:, None], axis=1)[:, 0]


def fine_grained_cross_entropy(logits: Array, structure_identity: Array) -> Array:
  """Cross-entropy of naming a generated image after its *structure* donor.

  What is left of a person once the clothes are another's (hair, build, bag) is what this head must learn to see.
  Paper: eq. 9; release fact 11.

  Args:
    logits: f32[B, K] of the fine-grained head on generated images, before softmax.
    structure_identity: i32[B], class index in [0, K) of the person who gave the structure.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: the shapes do not fit, or the identities are no integers.
  """
  return identity_cross_entropy(logits, structure_identity)
