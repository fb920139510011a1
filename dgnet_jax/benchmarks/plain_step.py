"""An iteration of the release's design in its plain formulation, which the step of `training` is measured against.

One network call wherever the release makes one, one image after the other, and every gradient that the release's
`backward()` computes, also those that it throws away. The loss terms and the new state are those of
`dgnet_jax.training.step.update`; a test compares them in float64.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dgnet_jax.losses.adversarial import AdversarialLosses, adversarial_losses
from dgnet_jax.losses.distillation import soft_label_kl, teacher_soft_labels
from dgnet_jax.losses.identity import fine_grained_cross_entropy, identity_cross_entropy
from dgnet_jax.losses.reconstruction import l1_error
from dgnet_jax.models.networks import Networks
from dgnet_jax.pixels import enlarge
from dgnet_jax.training.forward import Draws
from dgnet_jax.training.learning import StepContext, apply_gradients
from dgnet_jax.training.schedules import Number, loss_weights
from dgnet_jax.types import (
  ActiveTerms,
  AppearanceOutput,
  Array,
  NetworkState,
  PairBatch,
  Params,
  Teacher,
  TrainState,
)

frozen = jax.lax.stop_gradient
Streams = tuple[Array, Array]  # the release's a and b
Terms = dict[str, Array]  # f[B, 2]


class _Inputs(NamedTuple):
  """What all parts of the iteration read."""

  networks: Networks
  losses: AdversarialLosses
  batch: PairBatch
  draws: Draws
  active: ActiveTerms


class _Forward(NamedTuple):
  """What the release's forward pass leaves behind; cross images by appearance donor (x_ba, x_ab)."""

  structure: Streams
  code: Streams
  self_reconstruction: Streams
  positive_reconstruction: Streams
  cross: Streams


def plain_update(
  context: StepContext,
  state: TrainState,
  teachers: Sequence[Teacher],
  batch: PairBatch,
  draws: Draws,
  active: ActiveTerms,
) -> tuple[TrainState, Terms, Params]:
  """Performs the iteration that `update` performs, in the plain formulation.

  Dropout draws are others, because each call has its own.

  Args:
    context: of a run with the release's design, re-id style AB and joint training.
    state: as in `update`.
    teachers: as in `update`.
    batch: as in `update`.
    draws: as in `update`.
    active: as in `update`.

  Returns:
    The state after the iteration; the metrics of `update`; and the gradients that the release computes and throws away.
  """
  networks, config = context.networks, context.config
  weights = loss_weights(config.weights, config.ramps, config.teaching, state.step).terms
  losses = adversarial_losses(config.discriminator.gan_type, batch.image.shape[0])
  inputs = _Inputs(networks, losses, batch, draws, active)
  codes, reid_stats = _clean_codes(networks, state.reid, batch)

  def discriminate(params: Params) -> tuple[Array, Terms]:
    cross = tuple(map(frozen, _forward(inputs, state.generator.params, codes).cross))
    terms = _discriminator_terms(inputs, params, cross, config.discriminator.r1_weight)
    return _total(terms, dict.fromkeys(terms, weights['adversarial'])), terms

  gradients, discriminator_terms = jax.grad(discriminate, has_aux=True)(state.discriminator.params)
  discriminator = apply_gradients(context.optimizers.discriminator, state.discriminator, gradients, {})

  def objective(
    generator: Params, reid: Params, discriminator_params: Params, reid_copy: Params
  ) -> tuple[Array, tuple[Terms, Params]]:
    forward = _forward(inputs, generator, codes)
    terms = _generator_terms(inputs, forward, discriminator_params)
    terms |= _recovery_terms(inputs, forward, generator, reid_copy, reid_stats)
    labels = _labels(context, teachers, forward.cross, inputs) if active.teaching else None
    reid_terms, new_stats = _reid_terms(inputs, forward.cross, reid, reid_stats, labels)
    terms |= reid_terms
    return _total(terms, weights), (terms, new_stats)

  arguments = state.generator.params, state.reid.params, discriminator.params, state.reid.params
  gradient_fn = jax.value_and_grad(objective, argnums=(0, 1, 2, 3), has_aux=True)
  (total, (terms, new_stats)), (to_generator, to_reid, *thrown_away) = gradient_fn(*arguments)
  new_state = TrainState(
    step=state.step + 1,
    generator=apply_gradients(context.optimizers.generator, state.generator, to_generator, {}),
    discriminator=discriminator,
    reid=apply_gradients(context.optimizers.reid, state.reid, to_reid, new_stats),
    rng=state.rng,
  )
  metrics = {name: term.mean(0) for name, term in (discriminator_terms | terms).items()} | {'total': total}
  return new_state, metrics, {'discriminator': thrown_away[0], 'reid': thrown_away[1]}


def _total(terms: Terms, weights: Mapping[str, Number]) -> Array:
  return jnp.stack([weights[name] * term.mean(0).sum() for name, term in terms.items()]).sum()


def _streams(images: Array) -> Streams:
  return images[:, 0], images[:, 1]


def _stacked(values: Sequence[Array]) -> Array:
  return jnp.stack(values, axis=1)


def _encode(
  networks: Networks, params: Params, batch_stats: Params, image: Array, key: Array | None = None
) -> tuple[AppearanceOutput, Params]:
  """One call of the re-id network on f[B, rH, rW, 3]."""
  output, batch_stats = networks.encode_appearance_train(params, batch_stats, image[:, None], key)
  return jax.tree.map(lambda x: x[:, 0], output), batch_stats


def _clean_codes(networks: Networks, reid: NetworkState, batch: PairBatch) -> tuple[tuple[Array, ...], Params]:
  """Calls for the codes of both images and both positives; constants (facts 3, 4 and 16)."""
  codes, batch_stats = [], reid.batch_stats
  for image in (*_streams(batch.image), *_streams(batch.positive)):
    output, batch_stats = _encode(networks, reid.params, batch_stats, enlarge(image, networks.reid_scale))
    codes.append(frozen(output.code))
  return tuple(codes), batch_stats


def _forward(inputs: _Inputs, params: Params, codes: tuple[Array, ...]) -> _Forward:
  networks = inputs.networks
  decode = functools.partial(networks.decode, params)
  code_a, code_b, positive_a, positive_b = codes
  a, b = (
    networks.encode_structure(params, image, inputs.draws.structure_key) for image in _streams(inputs.batch.image)
  )
  return _Forward(
    structure=(a, b),
    code=(code_a, code_b),
    self_reconstruction=(decode(a, code_a), decode(b, code_b)),
    positive_reconstruction=(decode(a, positive_a), decode(b, positive_b)),
    cross=(decode(b, code_a), decode(a, code_b)),
  )


def _discriminator_terms(inputs: _Inputs, params: Params, cross: tuple[Array, ...], r1_weight: float) -> Terms:
  """Scores real and generated images in separate calls, and differentiates the penalty's gradient (facts 14 and 15)."""
  networks, losses = inputs.networks, inputs.losses

  def squared_gradient(score_fn: Callable[[Array], Array], real: Array) -> Array:
    gradient = jax.grad(lambda image: losses.score_transform(score_fn(image)).sum())(real)
    return jnp.square(gradient).sum((1, 2, 3))

  loss, penalty = [], []
  for real, fake in zip(_streams(inputs.batch.image), cross, strict=True):
    loss.append(losses.discriminator(networks.discriminate(params, real), networks.discriminate(params, fake)))
    by_scale = [squared_gradient(score_fn, real) for score_fn in networks.score_fns(params)]
    penalty.append(r1_weight * jnp.stack(by_scale).sum(0))
  return {'discriminator': _stacked(loss), 'r1': _stacked(penalty)}


def _generator_terms(inputs: _Inputs, forward: _Forward, discriminator: Params) -> Terms:
  images = _streams(inputs.batch.image)
  scores = [inputs.networks.discriminate(discriminator, cross) for cross in forward.cross]
  return {
    'self_reconstruction': _stacked(list(map(l1_error, forward.self_reconstruction, images))),
    'positive_reconstruction': _stacked(list(map(l1_error, forward.positive_reconstruction, images))),
    'adversarial': _stacked(list(map(inputs.losses.generator, scores))),
  }


def _recovery_terms(
  inputs: _Inputs, forward: _Forward, generator: Params, reid_copy: Params, reid_stats: Params
) -> Terms:
  """Judges the cross images with a copy of the re-id network, and goes back to the original images (facts 17, 18)."""
  networks, _, batch, draws, active = inputs
  outputs = [_encode(networks, reid_copy, reid_stats, enlarge(x, networks.reid_scale))[0] for x in forward.cross]
  identities = _streams(batch.identity)
  cross_identity = [identity_cross_entropy(x.primary_logits, y) for x, y in zip(outputs, identities, strict=True)]
  terms = {'cross_identity': _stacked(cross_identity)}
  if not (active.codes or active.cycle):
    return terms

  # Both branches of fact 18 exist, as the draw is not known beforehand.
  def routed(flag: Array, value: Any) -> Any:
    return jax.tree.map(lambda x: jnp.where(flag, x, frozen(x)), value)

  encoder = {'structure_encoder': routed(draws.update_structure_encoder, generator['structure_encoder'])}
  by_structure = forward.cross[::-1]
  recovered = [
    networks.encode_structure(encoder, routed(~draws.update_structure_encoder, x), draws.cross_structure_key)
    for x in by_structure
  ]
  if active.codes:
    terms['structure_code'] = _stacked(list(map(l1_error, recovered, forward.structure)))
    terms['appearance_code'] = _stacked([l1_error(x.code, y) for x, y in zip(outputs, forward.code, strict=True)])
  if active.cycle:
    back = [networks.decode(generator, s, x.code) for s, x in zip(recovered, outputs, strict=True)]
    terms['cycle'] = _stacked(list(map(l1_error, back, _streams(batch.image))))
  return terms


def _labels(context: StepContext, teachers: Sequence[Teacher], cross: Streams, inputs: _Inputs) -> Streams:
  """Calls the teachers on each cross image and on its mirror image (facts 12 and 13)."""
  network, settings = context.teacher_network, context.config.teaching

  def logits(image: Array) -> Array:
    predictions = [
      network.apply(
        teacher.params,
        teacher.batch_stats,
        enlarge(frozen(image), network.reid_scale)[:, None],
        norm=settings.teacher_norm,
        dropout_key=inputs.draws.teacher_dropout_key,
      )[0].logits[:, 0]
      for teacher in teachers
    ]
    return jnp.stack(predictions, axis=1)

  a, b = (
    teacher_soft_labels(
      logits(image),
      logits(jnp.flip(image, axis=-2)),
      style=settings.label_style,
      appearance_identity=inputs.batch.identity[:, i],
      structure_identity=inputs.batch.identity[:, 1 - i],
    )
    for i, image in enumerate(cross)
  )
  return frozen(a), frozen(b)


def _reid_terms(
  inputs: _Inputs, cross: Streams, reid: Params, batch_stats: Params, labels: Streams | None
) -> tuple[Terms, Params]:
  """Calls the re-id network on the erased images, and on the cross images if there are labels (facts 3, 9, 11, 19)."""
  networks, _, batch, draws, _ = inputs
  outputs = []
  images = [*_streams(batch.erased_image), *_streams(batch.erased_positive)]
  if labels is not None:
    images += [enlarge(frozen(x), networks.reid_scale) for x in cross]
  for i, image in enumerate(images):
    key = None if draws.dropout_key is None else jax.random.fold_in(draws.dropout_key, i)
    output, batch_stats = _encode(networks, reid, batch_stats, image, key)
    outputs.append(output)
  identities = _streams(batch.identity)

  def identification(outputs: Sequence[AppearanceOutput]) -> Array:
    pairs = zip(outputs, identities, strict=True)
    return _stacked([identity_cross_entropy(x.primary_logits, y) for x, y in pairs])

  terms = {'identity': identification(outputs[:2]), 'positive_identity': identification(outputs[2:4])}
  if labels is not None:
    fine = [jnp.asarray(x.fine_logits) for x in outputs]
    taught = zip(outputs[4:], labels, strict=True)
    terms['fine_identity'] = _stacked(list(map(identity_cross_entropy, fine[:2], identities)))
    terms['primary_teaching'] = _stacked([soft_label_kl(x.primary_logits, label) for x, label in taught])
    # The label of the fine-grained head is the structure donor's.
    terms['fine_teaching'] = _stacked(list(map(fine_grained_cross_entropy, fine[4:], identities[::-1])))
  return terms, batch_stats
