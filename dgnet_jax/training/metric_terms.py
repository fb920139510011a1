"""The metric losses that a network is trained with, on the embeddings of its heads before their classifiers."""

import functools

from dgnet_jax.config.network_schema import ReidConfig, TeacherConfig
from dgnet_jax.config.schema import WeightsConfig
from dgnet_jax.losses.metric import batch_hard_triplet_loss, circle_loss
from dgnet_jax.types import Array


def metric_names(weights: WeightsConfig | TeacherConfig) -> tuple[str, ...]:
  """Returns the names of the metric losses that have a weight."""
  return tuple(name for name in ('triplet', 'circle') if getattr(weights, name))


def metric_terms(
  names: tuple[str, ...], settings: ReidConfig | TeacherConfig, feature: Array, identity: Array
) -> dict[str, Array]:
  """Computes metric losses, f[B] each.

  Args:
    names: from `metric_names`.
    settings: their margins and scale.
    feature: f[B, D], embeddings, each compared with all others.
    identity: i32[B].
  """
  losses = {
    'triplet': functools.partial(batch_hard_triplet_loss, margin=settings.triplet_margin),
    'circle': functools.partial(circle_loss, margin=settings.circle_margin, scale=settings.circle_scale),
  }
  return {name: losses[name](feature, identity) for name in names}
