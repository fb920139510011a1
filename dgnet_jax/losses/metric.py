"""Metric losses: embeddings of one identity close to each other, those of others far away.

Every example of a batch is an anchor. Its positives are the other examples of its identity, its negatives those of all
other identities, so a batch needs several examples of each identity (`images_per_identity`).
"""

import jax
import jax.numpy as jnp

from dgnet_jax.types import Array, at_least_float32

NO_PAIR = -1e30  # logit of a pair that does not count; finite, so that gradients are, too
frozen = jax.lax.stop_gradient


def batch_hard_triplet_loss(feature: Array, identity: Array, *, margin: float = 0.3) -> Array:
  """Distance to the farthest positive minus distance to the nearest negative, with a margin.

  Paper: Hermans et al., arXiv 1703.07737, eq. 5 (batch hard), with Euclidean distances of embeddings that are not
  normalized. With margin m an example has the loss max(0, m + positive - negative); with m = 0, the soft margin
  log(1 + exp(positive - negative)).

  Args:
    feature: f32[B, D], embeddings.
    identity: i32[B].
    margin: in units of the embedding, at least 0; 0 is the soft margin.

  Returns:
    f32[B], at least 0; 0 for an example without a positive or without a negative. The gradient of a distance of 0 is
    taken as 0.

  Raises:
    ValueError: the shapes do not match, the identities are not integers, or the margin is negative.
  """
  is_positive, is_negative = _pairs(feature, identity)
  if margin < 0:
    raise ValueError(f'{margin=}: must be at least 0')
  feature = at_least_float32(feature)
  # Squared distances choose the pairs; the distances of those that are chosen are computed without cancellation.
  square = (frozen(feature) ** 2).sum(1)
  distance = square[:, None] + square - 2 * _products(frozen(feature))
  farthest = jnp.where(is_positive, distance, -jnp.inf).argmax(1)
  nearest = jnp.where(is_negative, distance, jnp.inf).argmin(1)
  gap = _distance(feature, feature[farthest]) - _distance(feature, feature[nearest])
  loss = jax.nn.relu(gap + margin) if margin else jax.nn.softplus(gap)
  return jnp.where(is_positive.any(1) & is_negative.any(1), loss, 0)


def circle_loss(feature: Array, identity: Array, *, margin: float = 0.25, scale: float = 128.0) -> Array:
  """Compares all positives of an example with all its negatives; pairs that are far from their optimum count more.

  Paper: Sun et al., arXiv 2002.10857, eq. 6 with the margins of section 3.2: with the cosines s_p of positives and s_n
  of negatives, log(1 + sum exp(scale a_n (s_n - m)) sum exp(-scale a_p (s_p - 1 + m))), where the weights
  a_p = max(0, 1 + m - s_p) and a_n = max(0, s_n + m) are constants for the gradient.

  Args:
    feature: f32[B, D], embeddings, of which only the direction counts.
    identity: i32[B].
    margin: m, in units of the cosine.
    scale: gamma in the paper.

  Returns:
    f32[B], at least 0; 0 for an example without a positive or without a negative. An embedding of 0 has cosine 0 with
    all others, and no gradient.

  Raises:
    ValueError: the shapes do not match, or the identities are not integers.
  """
  is_positive, is_negative = _pairs(feature, identity)
  cosine = _products(_direction(at_least_float32(feature)))
  positive_weight = jax.nn.relu(1 + margin - frozen(cosine))
  negative_weight = jax.nn.relu(frozen(cosine) + margin)

  def over_pairs(logits: Array, counts: Array) -> Array:
    return jax.nn.logsumexp(jnp.where(counts, logits, NO_PAIR), axis=1)

  positives = over_pairs(-scale * positive_weight * (cosine - (1 - margin)), is_positive)
  negatives = over_pairs(scale * negative_weight * (cosine - margin), is_negative)
  return jax.nn.softplus(positives + negatives)


def _pairs(feature: Array, identity: Array) -> tuple[Array, Array]:
  """Returns which examples are positives and which are negatives of each example, bool[B, B] each."""
  if feature.ndim != 2 or identity.shape != feature.shape[:1]:
    raise ValueError(f'{feature.shape=} {identity.shape=}: must be f32[B, D] and i32[B]')
  if not jnp.issubdtype(identity.dtype, jnp.integer):
    raise ValueError(f'{identity.dtype=}: must be an integer type')
  is_same = identity[:, None] == identity
  return is_same & ~jnp.eye(len(identity), dtype=bool), ~is_same


def _products(x: Array) -> Array:
  """f[B, D] -> f[B, B], all inner products; accelerators would round the factors, which small distances do not bear."""
  return jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)


def _distance(x: Array, y: Array) -> Array:
  """f[B, D] twice -> f[B], Euclidean; its gradient at 0 is taken as 0."""
  return _root(((x - y) ** 2).sum(1))


def _direction(x: Array) -> Array:
  """Divides f[B, D] by its length; 0 stays 0."""
  length = _root((x**2).sum(1, keepdims=True))
  return x / jnp.where(length == 0, 1, length)


def _root(square: Array) -> Array:
  """Returns the square root, with gradient 0 at 0."""
  is_zero = square == 0
  return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, square)))
