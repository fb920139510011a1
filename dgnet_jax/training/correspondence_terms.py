"""The loss terms of design correspondence that the release's design does not have."""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp

from dgnet_jax.losses.correspondence import divergence_from_uniform, matching_cross_entropy, weighted_l1
from dgnet_jax.losses.reductions import mean_per_example
from dgnet_jax.models.teacher import TeacherNetwork
from dgnet_jax.models.warping import block_means
from dgnet_jax.pixels import enlarge
from dgnet_jax.training.forward import Fetches
from dgnet_jax.types import Array, MovedCopy, PairBatch, Teacher

NAMES = ('matching', 'fetched', 'erasure', 'mask_area')
OUTSIDE_MASK = 0.1  # weight of cells outside the mask in the matching
per_stream = functools.partial(jax.vmap, in_axes=1, out_axes=1)


def correspondence_terms(
  network: TeacherNetwork, teachers: Sequence[Teacher], batch: PairBatch, moved: MovedCopy, fetches: Fetches
) -> dict[str, Array]:
  """Computes the terms that supervise matches and masks, f[B, 2] each.

  Args:
    network: from `make_teacher_network`.
    teachers: frozen.
    batch: the augmented images.
    moved: the moved copy in the batch.
    fetches: from `generate`.

  Returns:
    matching: cross-entropy of attention at the known places of the moved copy. fetched: L1 of the fetched pixels alone,
    inside the mask, for the moved copy and for the image. erasure: how clearly the teachers recognize the person
    outside the mask. mask_area: mean of the mask.
  """
  l1 = per_stream(weighted_l1)
  fetched = l1(fetches.moved_pixels, moved.image, fetches.moved_mask) + l1(
    fetches.positive_pixels, batch.image, fetches.mask
  )
  return {
    'matching': per_stream(_matching)(fetches.moved_logits, moved.place, fetches.moved_mask),
    'fetched': fetched / 2,
    'erasure': _erasure(network, teachers, batch.image * (1 - fetches.mask)),
    'mask_area': per_stream(mean_per_example)(fetches.mask),
  }


@jax.named_scope('matching')
def _matching(logits: Array, place: Array, mask: Array) -> Array:
  """Cross-entropy f[B] of attention f[B, Q, h, w] at the places f[B, H, W, 2] of a moved copy."""
  count, num_cells, rows, _ = logits.shape
  height, width = place.shape[1:3]
  stride = height // rows
  limit = jnp.array([height - 1, width - 1], place.dtype)
  inside = ((place >= 0) & (place <= limit)).all(-1, keepdims=True)
  cells = (block_means(place, stride) - (stride - 1) / 2) / stride
  weight = block_means(inside * (mask + OUTSIDE_MASK), stride)
  return matching_cross_entropy(logits, cells.reshape(count, num_cells, 2), weight.reshape(count, num_cells))


@jax.named_scope('erasure')
def _erasure(network: TeacherNetwork, teachers: Sequence[Teacher], image: Array) -> Array:
  """Computes how clearly the teachers recognize the person in images f[B, 2, H, W, 3]: f[B, 2], averaged over them."""
  seen = enlarge(image, network.reid_scale)
  errors = [
    per_stream(divergence_from_uniform)(network.apply(teacher.params, teacher.batch_stats, seen)[0].logits)
    for teacher in teachers
  ]
  return jnp.stack(errors).mean(0)
