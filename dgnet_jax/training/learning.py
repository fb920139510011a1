"""What an iteration learns from its batch, whole or in parts: gradients, loss terms and running statistics.

The discriminator learns from the cross images first, and the updated one judges them for the generator (release facts 1
and 6).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dgnet_jax.config.schema import Config
from dgnet_jax.losses.adversarial import AdversarialLosses, adversarial_losses
from dgnet_jax.losses.totals import weighted_total
from dgnet_jax.models.networks import Networks
from dgnet_jax.models.teacher import TeacherNetwork
from dgnet_jax.training import micro_batches, objectives
from dgnet_jax.training.correspondence_terms import correspondence_terms
from dgnet_jax.training.forward import AppearanceCodes, Draws, Generated, appearance_codes, generate, taught_images
from dgnet_jax.training.metric_terms import RealLosses, metric_names
from dgnet_jax.training.objectives import StepInputs, Terms
from dgnet_jax.training.optimizers import Optimizers
from dgnet_jax.training.schedules import Number, loss_weights
from dgnet_jax.training.soft_labels import soft_labels
from dgnet_jax.types import ActiveTerms, Array, NetworkState, PairBatch, Params, Teacher, TrainState


@dataclasses.dataclass(frozen=True)
class StepContext:
  """What all iterations of a run have in common.

  Attributes:
    networks: from `make_networks`.
    teacher_network: from `make_teacher_network`.
    optimizers: from `make_optimizers`.
    config: weights, ramps, teaching, augment, discriminator.gan_type and .r1_weight, joint, micro_batches, reid and
      structure_encoder_update_prob are read while tracing.
  """

  networks: Networks
  teacher_network: TeacherNetwork
  optimizers: Optimizers
  config: Config


class _Forward(NamedTuple):
  """The forward pass.

  Attributes:
    codes: appearance codes of the clean images.
    reid_stats: running statistics of the re-id network to continue with.
    generated: images generated from the batch.
    pull_back: maps the gradients of `generated` to those of the generator's and the re-id network's parameters; the
      latter are None if no gradient flows through the codes.
  """

  codes: AppearanceCodes
  reid_stats: Params
  generated: Generated
  pull_back: Callable[[Generated], tuple[Params, Params | None]]


def _forward(context: StepContext, state: TrainState, batch: PairBatch, draws: Draws) -> _Forward:
  networks = context.networks

  @jax.named_scope('codes')
  def encode(reid_params: Params) -> tuple[AppearanceCodes, Params]:
    return appearance_codes(networks, reid_params, state.reid.batch_stats, batch)

  @jax.named_scope('generation')
  def decode(generator_params: Params, codes: AppearanceCodes) -> Generated:
    return generate(networks, generator_params, batch, codes, draws.structure_key)

  codes, pull_back_codes, reid_stats = jax.vjp(encode, state.reid.params, has_aux=True)
  generated, pull_back_generated = jax.vjp(decode, state.generator.params, codes)
  if not context.config.augment.random_erasing_prob:
    # Then the release makes these calls once, for identification, and so do the running statistics (fact 3).
    reid_stats = state.reid.batch_stats

  def pull_back(to_generated: Generated) -> tuple[Params, Params | None]:
    generator_gradients, to_codes = pull_back_generated(to_generated)
    return generator_gradients, pull_back_codes(to_codes)[0] if networks.trains_through_code else None

  return _Forward(codes, reid_stats, generated, pull_back)


def _weighted(terms: Terms, weights: Mapping[str, Number]) -> Array:
  """Returns the scalar to minimize: weighted, averaged over the batch, summed over the two streams."""
  return weighted_total(terms, weights).mean(0).sum()


def apply_gradients(
  optimizer: optax.GradientTransformation, state: NetworkState, gradients: Params, batch_stats: Params
) -> NetworkState:
  """Returns the state of a network after an update, with the statistics `batch_stats`."""
  updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  return NetworkState(optax.apply_updates(state.params, updates), batch_stats, opt_state)


@dataclasses.dataclass(frozen=True)
class Iteration:
  """What stays the same while an iteration looks at its batch, whole or in parts.

  Attributes:
    losses: adversarial losses for the whole batch.
    weights: of all terms.
    names: the terms of generator and re-id network in this phase.
    taught: True if the re-id network learns from cross images.
  """

  context: StepContext
  losses: AdversarialLosses
  weights: Mapping[str, Number]
  names: tuple[str, ...]
  teachers: Sequence[Teacher]
  active: ActiveTerms
  taught: bool

  @property
  def match_features(self) -> bool:
    """True if the discriminator's features of rebuilt images are compared."""
    return self.context.config.weights.feature_matching > 0

  @property
  def real_losses(self) -> RealLosses:
    """Label smoothing and metric losses on real images."""
    return RealLosses(self.context.config.reid, metric_names(self.context.config.weights))

  @property
  def trains_generator(self) -> bool:
    """False if generator and discriminator stay as they are.

    XLA computes only what an output depends on, so the step is then the re-id part of the full one.
    """
    return self.context.config.joint and self.active.generator


def make_iteration(
  context: StepContext, state: TrainState, teachers: Sequence[Teacher], batch: PairBatch, active: ActiveTerms
) -> Iteration:
  """Collects what an iteration on the whole `batch` needs; the arguments are those of `update`.

  Raises:
    ValueError: `teaching.images` is ground_truth, joint is False, and the batch has no `cross_ground_truth`.
  """
  networks, config = context.networks, context.config
  taught = active.teaching and (config.joint or config.teaching.images == 'ground_truth')
  if taught and not config.joint and batch.cross_ground_truth is None:
    raise ValueError('teaching.images is ground_truth, but the batch has no cross_ground_truth')
  match_features = config.weights.feature_matching > 0
  return Iteration(
    context=context,
    losses=adversarial_losses(config.discriminator.gan_type, batch.image.shape[0]),
    weights=loss_weights(config.weights, config.ramps, config.teaching, state.step).terms,
    names=objectives.term_names(
      networks, active, taught=taught, match_features=match_features, metric=metric_names(config.weights)
    ),
    teachers=teachers,
    active=active,
    taught=taught,
  )


def _judge_fakes(iteration: Iteration, params: Params, real: Array, fake: Array) -> tuple[Params, Terms]:
  """Returns the discriminator's gradients and its terms."""
  context, weight = iteration.context, iteration.weights['adversarial']

  @jax.named_scope('discriminator')
  def objective(params: Params) -> tuple[Array, Terms]:
    r1_weight = context.config.discriminator.r1_weight
    terms = objectives.discriminator_terms(context.networks, iteration.losses, params, real, fake, r1_weight)
    return _weighted(terms, dict.fromkeys(objectives.DISCRIMINATOR_TERMS, weight)), terms

  gradients, terms = jax.grad(objective, has_aux=True)(params)
  return gradients, terms


@jax.named_scope('labels')
def _labels(iteration: Iteration, image: Array, identity: Array, draws: Draws) -> Array:
  """Returns the teachers' labels f[B, 2, K] of the cross images that the re-id network learns from."""
  teaching = iteration.context.config.teaching
  return soft_labels(
    iteration.context.teacher_network,
    iteration.teachers,
    image,
    identity,
    style=teaching.label_style,
    norm=teaching.teacher_norm,
    dropout_key=draws.teacher_dropout_key,
  )


class Minimized(NamedTuple):
  """The objective of generator and re-id network: its value, its terms, and what the update of both needs."""

  total: Array
  terms: Terms
  reid_stats: Params
  generator_gradients: Params
  reid_gradients: Params


def _minimize(iteration: Iteration, state: TrainState, forward: _Forward, inputs: StepInputs) -> Minimized:
  """Differentiates the terms of this phase with respect to the generator's and the re-id network's parameters."""
  context = iteration.context
  # Exactly the terms of this phase, so that a missing one is an error.
  weights = {name: iteration.weights[name] for name in iteration.names}

  def objective(generated: Generated, generator: Params, reid: Params) -> tuple[Array, tuple[Terms, Params]]:
    terms, reid_stats = objectives.generator_and_reid_terms(
      context.networks, iteration.losses, generated, generator, reid, inputs, iteration.active
    )
    if generated.fetches is not None and inputs.batch.moved is not None:
      terms |= correspondence_terms(
        context.teacher_network, inputs.teachers, inputs.batch, inputs.batch.moved, generated.fetches
      )
    return _weighted(terms, weights), (terms, reid_stats)

  gradient_fn = jax.value_and_grad(objective, argnums=(0, 1, 2), has_aux=True)
  (total, (terms, reid_stats)), (to_generated, direct, reid_gradients) = gradient_fn(
    forward.generated, state.generator.params, state.reid.params
  )
  through_forward, through_codes = forward.pull_back(to_generated)
  generator_gradients = jax.tree.map(jnp.add, direct, through_forward)
  if through_codes is not None:
    reid_gradients = jax.tree.map(jnp.add, reid_gradients, through_codes)
  if not iteration.trains_generator:
    generator_gradients = {}
  return Minimized(total, terms, reid_stats, generator_gradients, reid_gradients)


class Learned(NamedTuple):
  """What an iteration learns from its batch.

  If generator and discriminator are not trained, the discriminator is the old one, and there are no gradients of both
  and no terms of the discriminator.
  """

  discriminator: NetworkState
  discriminator_gradients: Params
  discriminator_terms: Terms
  minimized: Minimized


def learn(iteration: Iteration, state: TrainState, batch: PairBatch, draws: Draws) -> Learned:
  """Computes what an iteration learns from a batch at once.

  Args:
    iteration: from `make_iteration`, for the whole batch.
    state: state before the iteration.
    batch: the augmented images.
    draws: random draws of this step.
  """
  context = iteration.context
  forward = _forward(context, state, batch, draws)
  discriminator, labels = state.discriminator, None
  judged: tuple[Params, Terms] = ({}, {})
  if iteration.trains_generator:
    fake = forward.generated.cross_by_appearance
    judged = _judge_fakes(iteration, discriminator.params, batch.image, fake)
    discriminator = apply_gradients(context.optimizers.discriminator, discriminator, judged[0], {})
  if iteration.taught:
    labels = _labels(iteration, taught_images(forward.generated, batch), batch.identity, draws)
  inputs = _inputs(iteration, batch, forward, discriminator.params, labels, draws)
  return Learned(discriminator, *judged, _minimize(iteration, state, forward, inputs))


def learn_in_parts(iteration: Iteration, state: TrainState, batch: PairBatch, draws: Draws) -> Learned:
  """Like `learn`, with the batch in parts, which are generated twice: the discriminator learns from all of them first.

  Returns:
    The means over the parts, which are those of the batch at once: terms are per example, a part has whole BatchNorm
    groups, and the running statistics are linear in those of a group.
  """
  context, config = iteration.context, iteration.context.config
  group, trains_generator = config.reid.batch_norm_group, iteration.trains_generator
  parts = jnp.arange(config.micro_batches), micro_batches.split(batch, config.micro_batches, group)
  discriminator, labels = state.discriminator, None
  judged: tuple[Params, Terms] = ({}, {})

  def judge(part: tuple[Array, PairBatch]) -> tuple[tuple[Params, Terms], Array]:
    number, batch = part
    generated = _forward(context, state, batch, micro_batches.draws_of(draws, number)).generated
    fake, taught = generated.cross_by_appearance, taught_images(generated, batch)
    if not trains_generator:
      return ({}, {}), taught
    return _judge_fakes(iteration, state.discriminator.params, batch.image, fake), taught

  if trains_generator or iteration.taught:
    judged, taught = micro_batches.mean_over_parts(judge, parts)
  if trains_generator:
    discriminator = apply_gradients(context.optimizers.discriminator, discriminator, judged[0], {})
  if iteration.taught:  # of the whole batch, because the teachers' BatchNorm has no groups
    labels = _labels(iteration, micro_batches.join(taught, group), batch.identity, draws)
    labels = micro_batches.split(labels, config.micro_batches, group)

  def minimize(part: tuple[Array, PairBatch, Array | None]) -> tuple[Minimized, None]:
    number, batch, labels = part
    own_draws = micro_batches.draws_of(draws, number)
    forward = _forward(context, state, batch, own_draws)
    inputs = _inputs(iteration, batch, forward, discriminator.params, labels, own_draws)
    return _minimize(iteration, state, forward, inputs), None

  minimized, _ = micro_batches.mean_over_parts(minimize, (*parts, labels))
  return Learned(discriminator, *judged, minimized)


def _inputs(
  iteration: Iteration,
  batch: PairBatch,
  forward: _Forward,
  discriminator_params: Params,
  labels: Array | None,
  draws: Draws,
) -> StepInputs:
  return StepInputs(
    batch=batch,
    codes=forward.codes,
    reid_stats=forward.reid_stats,
    discriminator_params=discriminator_params,
    labels=labels,
    draws=draws,
    teachers=iteration.teachers,
    match_features=iteration.match_features,
    real_losses=iteration.real_losses,
  )
