"""Distillation of the teacher's soft labels on generated images."""

import jax
import jax.numpy as jnp

from dgnet_jax.types import Array, at_least_float32

# In the order of the release's `teacher_style`, 0 to 4.
LABEL_STYLES = ('soft', 'argmax', 'appearance', 'uniform', 'donors')


def soft_label_kl(student_logits: Array, teacher_probs: Array) -> Array:
  """Kullback-Leibler divergence KL(teacher || student); no gradient reaches the teacher.

  Paper: eq. 8 (primary feature learning).

  Args:
    student_logits: f32[B, K], before softmax.
    teacher_probs: f32[B, K], rows sum to 1; zeros are allowed.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: the shapes differ or are not [B, K].
  """
  if student_logits.ndim != 2 or student_logits.shape != teacher_probs.shape:
    raise ValueError(f'{student_logits.shape=} {teacher_probs.shape=}: both must be f32[B, K]')
  target = at_least_float32(jax.lax.stop_gradient(teacher_probs))
  log_student = jax.nn.log_softmax(at_least_float32(student_logits))
  return (jax.scipy.special.xlogy(target, target) - target * log_student).sum(axis=1)


def teacher_soft_labels(
  logits: Array,
  mirrored_logits: Array,
  *,
  style: str = 'soft',
  appearance_identity: Array | None = None,
  structure_identity: Array | None = None,
) -> Array:
  """Targets of the primary head on generated images; no gradient reaches the teacher.

  Styles (release fact 12):

  - 'soft': the teacher's softmax, averaged over the image and its mirror image. With several teachers it is averaged
    over these as well (the release crashes).
  - 'argmax': one-hot of the most likely identity of 'soft'.
  - 'appearance': one-hot of the appearance donor.
  - 'uniform': equal probabilities.
  - 'donors': 'soft' restricted to the two donors and renormalized.

  Args:
    logits: f32[B, K], the teacher's on the images, or f32[B, T, K] of T teachers.
    mirrored_logits: same shape, on the mirror images.
    style: one of `LABEL_STYLES`.
    appearance_identity: i32[B], for styles 'appearance' and 'donors'.
    structure_identity: i32[B], for style 'donors'.

  Returns:
    f32[B, K], rows sum to 1.

  Raises:
    ValueError: the style is unknown, identities that it needs are missing, or the shapes do not match.
  """
  if logits.ndim not in (2, 3) or logits.shape != mirrored_logits.shape:
    raise ValueError(f'{logits.shape=} {mirrored_logits.shape=}: both must be f32[B, K] or f32[B, T, K]')
  num_examples, num_identities = logits.shape[0], logits.shape[-1]
  soft = jax.nn.softmax(at_least_float32(logits)) + jax.nn.softmax(at_least_float32(mirrored_logits))
  if soft.ndim == 3:
    soft = soft.mean(axis=1)
  soft = jax.lax.stop_gradient(_normalized(soft))

  def one_hot(identity: Array | None, name: str) -> Array:
    if identity is None or identity.shape != (num_examples,):
      shape = None if identity is None else identity.shape
      raise ValueError(f'style {style!r} needs {name} i32[{num_examples}], not {shape}')
    return jax.nn.one_hot(identity, num_identities, dtype=soft.dtype)

  match style:
    case 'soft':
      return soft
    case 'argmax':
      return one_hot(soft.argmax(axis=1), 'the most likely identity')
    case 'appearance':
      return one_hot(appearance_identity, 'appearance_identity')
    case 'uniform':
      return jnp.full_like(soft, 1 / num_identities)
    case 'donors':
      donors = one_hot(appearance_identity, 'appearance_identity') + one_hot(structure_identity, 'structure_identity')
      return _normalized(jnp.where(donors > 0, soft, 0))
  raise ValueError(f'{style=}: must be one of {LABEL_STYLES}')


def _normalized(weights: Array) -> Array:
  return weights / weights.sum(axis=1, keepdims=True)
