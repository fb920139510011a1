"""Discriminator against generator: three families of losses, and the gradient penalty.

Scores are sequences with one array per image scale, the first axis of each counting examples: f32[B], f32[B, h, w] or
f32[B, h, w, 1]. Each example's loss is a mean over a map's pixels, summed over scales (release fact 14).
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp

from dgnet_jax.losses.checks import example_mean, example_sum, full_precision
from dgnet_jax.types import Array

Scores = Sequence[Array]
ScoreFn = Callable[[Array], Array]


def lsgan_discriminator_loss(real_scores: Scores, fake_scores: Scores) -> Array:
  """Least squares: real scores should be 1, fake ones 0.

  Paper: eq. 7, in the release's least-squares form (fact 14).

  Args:
    real_scores: f32[B, ...] per scale, on real images.
    fake_scores: f32[B, ...] per scale, on generated images that the caller has detached.

  Returns:
    f32[B].

  Raises:
    ValueError: numbers of scales, or shapes, differ.
  """
  _check_pairs(real_scores, fake_scores)
  return _over_scales(
    lambda fake, real: example_mean(fake**2) + example_mean((real - 1) ** 2), fake_scores, real_scores
  )


def lsgan_generator_loss(fake_scores: Scores) -> Array:
  """Least squares: fake scores should be 1. The release counts it twice (fact 14).

  Args:
    fake_scores: f32[B, ...] per scale, on generated images.

  Returns:
    f32[B].

  Raises:
    ValueError: there is no scale, or batch sizes differ.
  """
  _check_scores(fake_scores)
  return _over_scales(lambda fake: 2 * example_mean((fake - 1) ** 2), fake_scores)


def nonsaturating_discriminator_loss(real_scores: Scores, fake_scores: Scores) -> Array:
  """Binary cross-entropy of sigmoid(score): real is 1, fake is 0 (the release's nsgan).

  Args:
    real_scores: f32[B, ...] per scale, on real images, before the sigmoid.
    fake_scores: f32[B, ...] per scale, on generated images that the caller has detached.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: numbers of scales, or shapes, differ.
  """
  _check_pairs(real_scores, fake_scores)
  softplus = jax.nn.softplus
  return _over_scales(
    lambda fake, real: example_mean(softplus(fake)) + example_mean(softplus(-real)), fake_scores, real_scores
  )


def nonsaturating_generator_loss(fake_scores: Scores) -> Array:
  """Binary cross-entropy of sigmoid(score): fake should pass for real.

  Args:
    fake_scores: f32[B, ...] per scale, on generated images, before the sigmoid.

  Returns:
    f32[B], in nats.

  Raises:
    ValueError: there is no scale, or batch sizes differ.
  """
  _check_scores(fake_scores)
  return _over_scales(lambda fake: example_mean(jax.nn.softplus(-fake)), fake_scores)


def wasserstein_discriminator_loss(real_scores: Scores, fake_scores: Scores, *, drift_weight: float = 0.001) -> Array:
  """Fake minus real score, plus the squares of both, which keep scores from drifting off (release fact 15).

  Args:
    real_scores: f32[B, ...] per scale, on real images.
    fake_scores: f32[B, ...] per scale, on generated images that the caller has detached.
    drift_weight: of the sum of squares of an example's scores. The release also sums them over the batch: its number
      is the batch mean at a weight of 0.001 * B.

  Returns:
    f32[B].

  Raises:
    ValueError: numbers of scales, or shapes, differ.
  """
  _check_pairs(real_scores, fake_scores)

  def at_scale(fake: Array, real: Array) -> Array:
    drift = example_sum(fake**2) + example_sum(real**2)
    return example_mean(fake) - example_mean(real) + drift_weight * drift

  return _over_scales(at_scale, fake_scores, real_scores)


def wasserstein_generator_loss(fake_scores: Scores, *, drift_weight: float = 0.001) -> Array:
  """Minus the fake score, plus its square (release fact 15).

  Args:
    fake_scores: f32[B, ...] per scale, on generated images.
    drift_weight: as in `wasserstein_discriminator_loss`.

  Returns:
    f32[B].

  Raises:
    ValueError: there is no scale, or batch sizes differ.
  """
  _check_scores(fake_scores)
  return _over_scales(lambda fake: drift_weight * example_sum(fake**2) - example_mean(fake), fake_scores)


def unchanged(scores: Array) -> Array:
  return scores


@dataclasses.dataclass(frozen=True)
class AdversarialLosses:
  """One family: what either side minimises, and the function of the scores whose gradient is penalised."""

  discriminator: Callable[[Scores, Scores], Array]
  generator: Callable[[Scores], Array]
  penalized: Callable[[Array], Array] = unchanged


def adversarial_losses(gan_type: str, batch_size: int) -> AdversarialLosses:
  """The losses that the release calls lsgan, nsgan and wgan (facts 14 and 15).

  Args:
    gan_type: lsgan, nsgan or wgan.
    batch_size: examples that a loss is averaged over; the release's drift term is a sum over them.

  Raises:
    ValueError: unknown type.
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
  raise ValueError(f'{gan_type=}: want lsgan, nsgan or wgan')


def scores_and_penalty(
  score_fn: ScoreFn, image: Array, penalized: Callable[[Array], Array] = unchanged
) -> tuple[Array, Array]:
  """A discriminator's scores, and the squared norm of their gradient with respect to each image.

  The penalty's own gradient is exact but is not found by differentiating a backward pass: with g the image gradient
  held constant, the gradient of |g|^2 is that of 2 <g, d score / d image>, one forward-mode derivative of the scores.
  That is three times cheaper. Call it scale by scale, so that no scale carries zeros for the others.

  Args:
    score_fn: from f32[B, H, W, C] to f32[B, ...]; an example's scores must depend on its own image alone, or else all
      examples must be weighted alike.
    image: f32[B, H, W, C], real images.
    penalized: elementwise, of the scores; for nonsaturating losses the release differentiates sigmoid(score).

  Returns:
    Scores f32[B, ...], and f32[B], the sum over H, W, C of (d sum(penalized(scores)) / d image)^2, unweighted.

  Raises:
    ValueError: the scores' first axis is not the batch.
  """

  def judged(x: Array) -> tuple[Array, Array]:
    scores = score_fn(x)
    return penalized(scores), scores

  gradient = jax.lax.stop_gradient(jax.grad(lambda x: judged(x)[0].sum())(image))
  _, tangent, scores = jax.jvp(judged, (image,), (gradient,), has_aux=True)
  if scores.shape[:1] != image.shape[:1]:
    raise ValueError(f'{scores.shape=} {image.shape=}: want one score map per image')
  directional = example_sum(tangent)
  # The value comes from the gradient; the second summand is 0 and only brings the derivative.
  penalty = example_sum(full_precision(gradient) ** 2) + 2 * (directional - jax.lax.stop_gradient(directional))
  return scores, penalty


def r1_penalty(
  score_fn: ScoreFn | Sequence[ScoreFn], real_image: Array, penalized: Callable[[Array], Array] = unchanged
) -> Array:
  """Squared gradient norm of a discriminator's scores on real images, summed over scales (release fact 15).

  Args:
    score_fn: one function, or one per scale, as in `scores_and_penalty`.
    real_image: f32[B, H, W, C].
    penalized: as in `scores_and_penalty`.

  Returns:
    f32[B], without a weight.

  Raises:
    ValueError: there is no function, or its scores' first axis is not the batch.
  """
  score_fns = [score_fn] if callable(score_fn) else list(score_fn)
  if not score_fns:
    raise ValueError('no score function')
  return jnp.stack([scores_and_penalty(fn, real_image, penalized)[1] for fn in score_fns]).sum(axis=0)


def _check_scores(scores: Scores) -> None:
  if isinstance(scores, jax.Array):
    raise ValueError(f'one array {scores.shape=}: want a sequence with one f32[B, ...] per scale')
  shapes = [score.shape for score in scores]
  if not shapes or any(not shape or shape[0] != shapes[0][0] for shape in shapes):
    raise ValueError(f'scores have {shapes=}: want one f32[B, ...] per scale')


def _check_pairs(real_scores: Scores, fake_scores: Scores) -> None:
  _check_scores(real_scores)
  real_shapes, fake_shapes = [score.shape for score in real_scores], [score.shape for score in fake_scores]
  if real_shapes != fake_shapes:
    raise ValueError(f'{real_shapes=} {fake_shapes=}: want the same')


def _over_scales(loss: Callable[..., Array], *scores: Scores) -> Array:
  return jnp.stack([loss(*map(full_precision, at_scale)) for at_scale in zip(*scores, strict=True)]).sum(axis=0)
