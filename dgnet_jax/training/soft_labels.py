"""Soft labels: what the teachers predict for cross images."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dgnet_jax.losses.distillation import teacher_soft_labels
from dgnet_jax.models.teacher import TeacherNetwork
from dgnet_jax.pixels import enlarge
from dgnet_jax.types import Array, Teacher


def soft_labels(
  network: TeacherNetwork,
  teachers: Sequence[Teacher],
  image: Array,
  identity: Array,
  *,
  style: str,
  norm: str,
  dropout_key: Array | None,
) -> Array:
  """Computes labels from the teachers' predictions for images and their mirror images; no gradient flows back.

  Each stream, and each stream of mirror images, is a separate BatchNorm call (release facts 12 and 13).

  Args:
    network: from `make_teacher_network`.
    teachers: one or more, whose labels are averaged.
    image: f[B, 2, H, W, 3], cross images by appearance donor.
    identity: i32[B, 2] of the appearance donors; the structure donor is the appearance donor of the other stream.
    style: one of `LABEL_STYLES`.
    norm: batch or running.
    dropout_key: random key of dropout; None disables it.

  Returns:
    f[B, 2, K], rows sum to 1.
  """
  seen = enlarge(jax.lax.stop_gradient(image), network.reid_scale)
  both = jnp.concatenate([seen, jnp.flip(seen, axis=-2)], axis=1)
  logits = []
  for i, teacher in enumerate(teachers):
    key = None if dropout_key is None else jax.random.fold_in(dropout_key, i)
    output, _ = network.apply(teacher.params, teacher.batch_stats, both, norm=norm, dropout_key=key)
    logits.append(output.logits)
  views = jnp.stack(logits, axis=2)  # [B, stream and mirrored stream, teacher, K]

  def label(view: Array, mirrored: Array, appearance: Array, structure: Array) -> Array:
    return teacher_soft_labels(
      view, mirrored, style=style, appearance_identity=appearance, structure_identity=structure
    )

  labels = jax.vmap(label, in_axes=1, out_axes=1)(views[:, :2], views[:, 2:], identity, identity[:, ::-1])
  return jax.lax.stop_gradient(labels)
