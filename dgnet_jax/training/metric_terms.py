"""The metric losses that a network is trained with, on the embeddings of its heads before their classifiers."""

import dataclasses
import functools

import jax.numpy as jnp

from dgnet_jax.config.network_schema import ReidConfig, TeacherConfig
from dgnet_jax.config.schema import WeightsConfig
from dgnet_jax.losses.metric import batch_hard_triplet_loss, circle_loss
from dgnet_jax.types import Array


@dataclasses.dataclass(frozen=True)
class RealLosses:
  """How the re-id network learns from real images, apart from plain identification.

  Attributes:
    settings: label smoothing, and the margins and the scale of the metric losses.
    names: of the metric losses, from `metric_names`.
  """

  settings: ReidConfig = ReidConfig()
  names: tuple[str, ...] = ()


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


def pair_metric_terms(losses: RealLosses, feature: Array, identity: Array) -> dict[str, Array]:
  """Computes metric losses of one head on a batch of pairs, f[B, 2] each.

  Each of the 4 B embeddings, of the images and the positives of both streams, is compared with all others. So every
  image has a positive at least, and BatchNorm groups are compared with each other, as they are at test time.

  Args:
    losses: which ones.
    feature: f[B, 4, D], embeddings of the images of both streams, then of their positives: the bottleneck after
      BatchNorm and before dropout, in training mode.
    identity: i32[B, 2].

  Returns:
    The mean of an image and its positive.
  """
  identities = jnp.concatenate([identity, identity], axis=1)
  terms = metric_terms(losses.names, losses.settings, feature.reshape(-1, feature.shape[-1]), identities.reshape(-1))
  return {name: term.reshape(-1, 2, 2).mean(1) for name, term in terms.items()}
