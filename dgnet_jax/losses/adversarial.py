"""Adversarial losses, in three families, and the gradient penalty.

Scores are a sequence with one array per image scale: f32[B], f32[B, h, w] or f32[B, h, w, 1]. An example's loss is the
mean over a score map, summed over scales (release fact 14).
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp

from dgnet_jax.losses.reductions import mean_per_example, sum_per_example
from dgnet_jax.types import Array, at_least_float32

SMALLEST_FEATURE = 1e-6  # mean of a layer below which an error counts less
Scores = Sequence[Array]
ScoreFn = Callable[[Array], Array]


def lsgan_discriminator_loss(real_scores: Scores, fake_scores: Scores) -> Array:
  """Least-squares loss with targets 1 for real and 0 for generated images.

  Paper: eq. 7, in the release's least-squares form (release fact 14).

  Args:
    real_scores: f32[B, ...] per scale, on real images.
    fake_scores: f32[B, ...] per scale, on generated images, which the caller has detached.

  Returns:
    f32[B].

  Raises:
    ValueError: the numbers of scales or the shapes differ.
  """
  _check_pairs(real_scores, fake_scores)
  return _over_scales(
    lambda fake, real: mean_per_example(fake**2) + mean_per_example((real - 1) ** 2), fake_scores, real_scores
  )


def lsgan_generator_loss(fake_scores: Scores) -> Array:
  """Computes twice the least-squares loss with target 1 for generated images (release fact 14).

  Args:
    fake_scores: f32[B, ...] per scale, on generated images.

  Returns:
    f32[B].

  Raises:
    ValueError: there are no scales, or the batch sizes differ.
  """
  _check_scores(fake_scores)
  return _over_scales(lambda fake: 2 * mean_per_example((fake - 1) ** 2), fake_scores)


def nonsaturating_discriminator_loss(real_scores: Scores, fake_scores: Scores) -> Array:
  """Binary cross-entropy of sigmoid(score) with targets 1 for real and 0 for generated images (the release's nsgan).

  Args:
    real_scores: f32[B, ...] per scale, on real images, before the sigmoid.
    fake_scores: f32[B, ...] per scale, on generated images, which the caller has detached.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: the numbers of scales or the shapes differ.
  """
  _check_pairs(real_scores, fake_scores)
  softplus = jax.nn.softplus
  return _over_scales(
    lambda fake, real: mean_per_example(softplus(fake)) + mean_per_example(softplus(-real)), fake_scores, real_scores
  )


def nonsaturating_generator_loss(fake_scores: Scores) -> Array:
  """Binary cross-entropy of sigmoid(score) with target 1 for generated images.

  Args:
    fake_scores: f32[B, ...] per scale, on generated images, before the sigmoid.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: there are no scales, or the batch sizes differ.
  """
  _check_scores(fake_scores)
  return _over_scales(lambda fake: mean_per_example(jax.nn.softplus(-fake)), fake_scores)


def wasserstein_discriminator_loss(real_scores: Scores, fake_scores: Scores, *, drift_weight: float = 0.001) -> Array:
  """Generated minus real score, plus a penalty on squared scores that keeps them from drifting (release fact 15).

  Args:
    real_scores: f32[B, ...] per scale, on real images.
    fake_scores: f32[B, ...] per scale, on generated images, which the caller has detached.
    drift_weight: weight of the sum of an example's squared scores. The release also sums over the batch, which equals
      the batch mean with a weight of 0.001 * B.

  Returns:
    f32[B].

  Raises:
    ValueError: the numbers of scales or the shapes differ.
  """
  _check_pairs(real_scores, fake_scores)

  def at_scale(fake: Array, real: Array) -> Array:
    drift = sum_per_example(fake**2) + sum_per_example(real**2)
    return mean_per_example(fake) - mean_per_example(real) + drift_weight * drift

  return _over_scales(at_scale, fake_scores, real_scores)


def wasserstein_generator_loss(fake_scores: Scores, *, drift_weight: float = 0.001) -> Array:
  """Negative score of generated images, plus a penalty on squared scores (release fact 15).

  Args:
    fake_scores: f32[B, ...] per scale, on generated images.
    drift_weight: as in `wasserstein_discriminator_loss`.

  Returns:
    f32[B].

  Raises:
    ValueError: there are no scales, or the batch sizes differ.
  """
  _check_scores(fake_scores)
  return _over_scales(lambda fake: drift_weight * sum_per_example(fake**2) - mean_per_example(fake), fake_scores)


def feature_matching_loss(fake_features: Sequence[Array], real_features: Sequence[Array]) -> Array:
  """L1 error of a discriminator's features of a rebuilt image, relative to those of the original.

  Reference: Wang et al., arXiv 1711.11585, but the error of each layer is divided by the mean absolute feature of the
  original, so that no layer counts more because its features are larger, and layers are averaged, not summed. The
  release has no such loss.

  Args:
    fake_features: f32[B, ...] per layer and scale, of rebuilt images.
    real_features: f32[B, ...] likewise, of the originals; no gradient reaches them.

  Returns:
    f32[B], at least 0; 1 for features of 0.

  Raises:
    ValueError: there are no features, or the numbers of layers or the shapes differ.
  """
  _check_pairs(real_features, fake_features)

  def at_layer(fake: Array, real: Array) -> Array:
    real = jax.lax.stop_gradient(at_least_float32(real))
    error = mean_per_example(jnp.abs(at_least_float32(fake) - real))
    return error / (mean_per_example(jnp.abs(real)) + SMALLEST_FEATURE)

  return _over_scales(at_layer, fake_features, real_features) / len(real_features)


def _unchanged(scores: Array) -> Array:
  return scores


@dataclasses.dataclass(frozen=True)
class AdversarialLosses:
  """One family of losses.

  Attributes:
    discriminator: maps scores of real and of generated images to f32[B].
    generator: maps scores of generated images to f32[B].
    score_transform: elementwise; the penalty is on the gradient of the transformed scores.
  """

  discriminator: Callable[[Scores, Scores], Array]
  generator: Callable[[Scores], Array]
  score_transform: Callable[[Array], Array] = _unchanged


def adversarial_losses(gan_type: str, batch_size: int) -> AdversarialLosses:
  """Returns the losses that the release calls lsgan, nsgan or wgan (release facts 14 and 15).

  Args:
    gan_type: lsgan, nsgan or wgan.
    batch_size: number of examples over which a loss is averaged; the release sums its drift term over them.

  Raises:
    ValueError: the type is unknown.
  """
  drift = 0.001 * batch_size
  match gan_type:
    case 'lsgan':
      return AdversarialLosses(lsgan_discriminator_loss, lsgan_generator_loss)
    case 'nsgan':
      return AdversarialLosses(nonsaturating_discriminator_loss, nonsaturating_generator_loss, jax.nn.sigmoid)
    case 'wgan':
      return AdversarialLosses(
        functools.partial(wasserstein_discriminator_loss, drift_weight=drift),
        functools.partial(wasserstein_generator_loss, drift_weight=drift),
      )
  raise ValueError(f'{gan_type=}: must be lsgan, nsgan or wgan')


def scores_and_penalty(
  score_fn: ScoreFn, image: Array, score_transform: Callable[[Array], Array] = _unchanged
) -> tuple[Array, Array]:
  """Computes a discriminator's scores, and the squared norm of their gradient with respect to each image.

  The penalty's gradient is exact, but needs no second backward pass: with g the image gradient held constant, the
  gradient of |g|^2 is that of 2 <g, d score / d image>, one forward-mode derivative of the scores. This is three times
  cheaper than differentiating twice in reverse. Call it separately for each scale, so that no scale computes zeros for
  the others.

  Args:
    score_fn: maps f32[B, H, W, C] to f32[B, ...]. Either an example's scores depend on its own image alone, or the
      caller weights all examples equally.
    image: f32[B, H, W, C], real images.
    score_transform: elementwise, applied to the scores before the gradient is taken (the release: sigmoid for
      nonsaturating losses, otherwise the identity).

  Returns:
    Scores f32[B, ...]; and f32[B], the sum over H, W, C of (d sum(score_transform(scores)) / d image)^2, unweighted.

  Raises:
    ValueError: the scores' first axis is not the batch axis.
  """

  def transformed_and_scores(x: Array) -> tuple[Array, Array]:
    scores = score_fn(x)
    return score_transform(scores), scores

  gradient = jax.lax.stop_gradient(jax.grad(lambda x: transformed_and_scores(x)[0].sum())(image))
  _, tangent, scores = jax.jvp(transformed_and_scores, (image,), (gradient,), has_aux=True)
  if scores.shape[:1] != image.shape[:1]:
    raise ValueError(f'{scores.shape=} {image.shape=}: there must be one score map per image')
  directional = sum_per_example(tangent)
  # The first summand is the value, without a gradient; the second is 0 and has the gradient.
  penalty = sum_per_example(at_least_float32(gradient) ** 2) + 2 * (directional - jax.lax.stop_gradient(directional))
  return scores, penalty


def r1_penalty(
  score_fn: ScoreFn | Sequence[ScoreFn], real_image: Array, score_transform: Callable[[Array], Array] = _unchanged
) -> Array:
  """Squared gradient norm of a discriminator's scores on real images, summed over scales (release fact 15).

  Args:
    score_fn: one function, or one per scale, as in `scores_and_penalty`.
    real_image: f32[B, H, W, C].
    score_transform: as in `scores_and_penalty`.

  Returns:
    f32[B], unweighted.

  Raises:
    ValueError: there is no score function, or the scores' first axis is not the batch axis.
  """
  score_fns = [score_fn] if callable(score_fn) else list(score_fn)
  if not score_fns:
    raise ValueError('no score function')
  return jnp.stack([scores_and_penalty(fn, real_image, score_transform)[1] for fn in score_fns]).sum(axis=0)


def _check_scores(scores: Scores) -> None:
  if isinstance(scores, jax.Array):
    raise ValueError(f'{scores.shape=}: must be a sequence of arrays, one f32[B, ...] per scale')
  shapes = [score.shape for score in scores]
  if not shapes or any(not shape or shape[0] != shapes[0][0] for shape in shapes):
    raise ValueError(f'{shapes=}: must be one f32[B, ...] per scale')


def _check_pairs(real_scores: Scores, fake_scores: Scores) -> None:
  _check_scores(real_scores)
  real_shapes, fake_shapes = [score.shape for score in real_scores], [score.shape for score in fake_scores]
  if real_shapes != fake_shapes:
    raise ValueError(f'{real_shapes=} {fake_shapes=}: must be equal')


def _over_scales(loss: Callable[..., Array], *scores: Scores) -> Array:
  return jnp.stack([loss(*map(at_least_float32, at_scale)) for at_scale in zip(*scores, strict=True)]).sum(axis=0)
