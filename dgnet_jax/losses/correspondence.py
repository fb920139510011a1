"""Losses of the correspondence generator."""

import jax
import jax.numpy as jnp

from dgnet_jax.losses.reductions import mean_per_example
from dgnet_jax.types import Array, at_least_float32


def matching_cross_entropy(logits: Array, place: Array, weight: Array) -> Array:
  """Cross-entropy between attention and the known places of cells.

  The target distribution is bilinear: a place between the centres of four cells is shared by them. Rebuilding an image
  from a moved copy of it makes places known; photos of a person alone would only teach which colours fit.

  Args:
    logits: f32[B, Q, h, w] of each of Q cells over the donor's cells, before softmax.
    place: f32[B, Q, 2], (row, column) of each cell in the donor, in cells: (0, 0) is the centre of the first. Places
      outside are moved to the nearest cell.
    weight: f32[B, Q], how much each cell counts, at least 0 and not all 0; no gradient reaches it.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: the shapes do not fit.
  """
  count, num_cells, height, width = logits.shape
  if place.shape != (count, num_cells, 2) or weight.shape != (count, num_cells):
    raise ValueError(f'{logits.shape=} {place.shape=} {weight.shape=}: must be [B, Q, h, w], [B, Q, 2], [B, Q]')
  log_probs = jax.nn.log_softmax(at_least_float32(logits).reshape(count, num_cells, -1), axis=-1)
  limit = jnp.array([height - 1, width - 1], place.dtype)
  place = jnp.clip(place, 0, limit)
  first = jnp.floor(place)
  rest = place - first
  missed = jnp.zeros((count, num_cells), log_probs.dtype)
  for down in (0, 1):
    for right in (0, 1):
      row, column = (jnp.minimum(first[..., i] + step, limit[i]) for i, step in enumerate((down, right)))
      index = (row * width + column).astype(jnp.int32)[..., None]
      share = jnp.abs(1 - down - rest[..., 0]) * jnp.abs(1 - right - rest[..., 1])
      missed -= share * jnp.take_along_axis(log_probs, index, axis=-1)[..., 0]
  weight = jax.lax.stop_gradient(weight)
  return (missed * weight).sum(1) / weight.sum(1)


def weighted_l1(prediction: Array, target: Array, weight: Array) -> Array:
  """Mean absolute error of each example, with a weight for every pixel; no gradient reaches target and weight.

  Args:
    prediction: f32[B, H, W, C].
    target: f32[B, H, W, C].
    weight: f32[B, H, W, 1], at least 0.

  Returns:
    f32[B], the mean over all pixels and channels of weight times error.

  Raises:
    ValueError: the shapes do not fit.
  """
  if prediction.shape != target.shape or weight.shape != (*target.shape[:-1], 1):
    raise ValueError(f'{prediction.shape=} {target.shape=} {weight.shape=}: must be [B, H, W, C] twice, [B, H, W, 1]')
  error = jnp.abs(at_least_float32(prediction) - jax.lax.stop_gradient(at_least_float32(target)))
  return mean_per_example(error * jax.lax.stop_gradient(weight))


def divergence_from_uniform(logits: Array) -> Array:
  """KL divergence of the uniform distribution from predicted identities: 0 where nobody is recognized.

  Args:
    logits: f32[B, K], before softmax.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: the logits are not [B, K].
  """
  if logits.ndim != 2:
    raise ValueError(f'{logits.shape=}: must be f32[B, K]')
  log_probs = jax.nn.log_softmax(at_least_float32(logits))
  return -log_probs.mean(1) - jnp.log(jnp.asarray(logits.shape[1], log_probs.dtype))
