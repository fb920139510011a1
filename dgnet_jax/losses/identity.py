"""Identification losses."""

import jax
import jax.numpy as jnp

from dgnet_jax.types import Array, at_least_float32


def identity_cross_entropy(logits: Array, identity: Array, *, split: bool = False, smoothing: float = 0.0) -> Array:
  """Cross-entropy between predicted and actual identity.

  Paper: eq. 3 and 6 (identification of real and of generated images).

  Args:
    logits: f32[B, K], before softmax.
    identity: i32[B], class index in [0, K).
    split: the logits are split over devices along K. The value is the same; each device then looks for the identity
      among its own logits, where indexing, and even more its gradient, would exchange logits.
    smoothing: share of the target probability that all K identities, also the actual one, have in equal parts (label
      smoothing: Szegedy et al., arXiv 1512.00567, section 7). In [0, 1); 0 is the paper's loss.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: the shapes do not match, the identities are not integers, or the smoothing is out of range.
  """
  if not 0 <= smoothing < 1:
    raise ValueError(f'{smoothing=}: must be in [0, 1)')
  if logits.ndim != 2 or identity.shape != logits.shape[:1]:
    raise ValueError(f'{logits.shape=} {identity.shape=}: must be f32[B, K] and i32[B]')
  if not jnp.issubdtype(identity.dtype, jnp.integer):
    raise ValueError(f'{identity.dtype=}: must be an integer type')
  log_probs = jax.nn.log_softmax(at_least_float32(logits))
  if split:
    loss = -jnp.where(jnp.arange(logits.shape[1]) == identity[:, None], log_probs, 0).sum(axis=1)
  else:
    loss = -jnp.take_along_axis(log_probs, identity[:, None], axis=1)[:, 0]
  return (1 - smoothing) * loss - smoothing * log_probs.mean(axis=1) if smoothing else loss


def fine_grained_cross_entropy(logits: Array, structure_identity: Array, *, split: bool = False) -> Array:
  """Cross-entropy between the fine-grained head's prediction and the *structure* donor's identity.

  A generated image shows its structure donor in another person's clothes. To recognize the donor, the head must learn
  cues other than clothing: hair, build, bags.

  Paper: eq. 9; release fact 11.

  Args:
    logits: f32[B, K] of the fine-grained head on generated images, before softmax.
    structure_identity: i32[B], class index in [0, K) of the structure donor.
    split: as for `identity_cross_entropy`.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: the shapes do not match, or the identities are not integers.
  """
  return identity_cross_entropy(logits, structure_identity, split=split)
