"""One iteration as one jitted function: forward pass, discriminator update, then generator and re-id update.

The order is the release's: the discriminator learns from the cross images of this step, and the generator is judged by
the updated discriminator (release facts 1 and 6).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dgnet_jax.config.schema import Config
from dgnet_jax.losses.adversarial import AdversarialLosses, adversarial_losses
from dgnet_jax.losses.totals import weighted_total
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.models.networks import Networks
from dgnet_jax.models.teacher import TeacherNetwork
from dgnet_jax.sharding import replicated
from dgnet_jax.training import objectives
from dgnet_jax.training.augment import augment_pairs, moved_copies
from dgnet_jax.training.correspondence_terms import correspondence_terms
from dgnet_jax.training.forward import AppearanceCodes, Draws, Generated, appearance_codes, generate, taught_images
from dgnet_jax.training.objectives import StepInputs, Terms, stream_means
from dgnet_jax.training.optimizers import Optimizers, make_optimizers
from dgnet_jax.training.schedules import Number, loss_weights
from dgnet_jax.training.soft_labels import soft_labels
from dgnet_jax.types import ActiveTerms, Array, NetworkState, PairBatch, Params, PixelBatch, Teacher, TrainState
from dgnet_jax.utils.xla_options import CONVOLUTIONS, accepted_options

Metrics = dict[str, Array]
Gradients = dict[str, Params]
TrainStep = Callable[[TrainState, Sequence[Teacher], PixelBatch, ActiveTerms], tuple[TrainState, Metrics]]

REID_TERMS = ('identity', 'positive_identity', 'fine_identity', 'primary_teaching', 'fine_teaching')


@dataclasses.dataclass(frozen=True)
class StepContext:
  """What all iterations of a run have in common.

  Attributes:
    networks: from `make_networks`.
    teacher_network: from `make_teacher_network`.
    optimizers: from `make_optimizers`.
    config: weights, ramps, teaching, augment, discriminator.gan_type and .r1_weight, joint and
      structure_encoder_update_prob are read while tracing.
  """

  networks: Networks
  teacher_network: TeacherNetwork
  optimizers: Optimizers
  config: Config


def make_step_context(config: Config, num_identities: int) -> StepContext:
  """Builds the networks and optimizers of a run on data with `num_identities` identities."""
  return StepContext(
    make_networks(config, num_identities),
    make_teacher_network(config, num_identities),
    make_optimizers(config.optimizer),
    config,
  )


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


def _update_discriminator(
  context: StepContext, losses: AdversarialLosses, state: NetworkState, real: Array, fake: Array, weight: Number
) -> tuple[NetworkState, Params, Terms]:
  """Returns the updated discriminator, its gradients and its terms."""

  @jax.named_scope('discriminator')
  def objective(params: Params) -> tuple[Array, Terms]:
    r1_weight = context.config.discriminator.r1_weight
    terms = objectives.discriminator_terms(context.networks, losses, params, real, fake, r1_weight)
    return _weighted(terms, dict.fromkeys(objectives.DISCRIMINATOR_TERMS, weight)), terms

  gradients, terms = jax.grad(objective, has_aux=True)(state.params)
  return apply_gradients(context.optimizers.discriminator, state, gradients, {}), gradients, terms


@jax.named_scope('labels')
def _labels(
  context: StepContext, teachers: Sequence[Teacher], generated: Generated, batch: PairBatch, draws: Draws
) -> Array:
  """Returns the teachers' labels f[B, 2, K] of the cross images that the re-id network learns from."""
  config = context.config
  if not config.joint and batch.cross_ground_truth is None:
    raise ValueError('teaching.images is ground_truth, but the batch has no cross_ground_truth')
  return soft_labels(
    context.teacher_network,
    teachers,
    taught_images(generated, batch),
    batch.identity,
    style=config.teaching.label_style,
    norm=config.teaching.teacher_norm,
    dropout_key=draws.teacher_dropout_key,
  )


class _Minimized(NamedTuple):
  """The objective of generator and re-id network: its value, its terms, and what the update of both needs."""

  total: Array
  terms: Terms
  reid_stats: Params
  generator_gradients: Params
  reid_gradients: Params


def _minimize(
  context: StepContext,
  losses: AdversarialLosses,
  weights: Mapping[str, Number],
  state: TrainState,
  forward: _Forward,
  inputs: StepInputs,
  active: ActiveTerms,
) -> _Minimized:
  """Differentiates the terms named in `weights` with respect to the generator's and the re-id network's parameters."""

  def objective(generated: Generated, generator: Params, reid: Params) -> tuple[Array, tuple[Terms, Params]]:
    terms, reid_stats = objectives.generator_and_reid_terms(
      context.networks, losses, generated, generator, reid, inputs, active
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
  return _Minimized(total, terms, reid_stats, generator_gradients, reid_gradients)


def update(
  context: StepContext,
  state: TrainState,
  teachers: Sequence[Teacher],
  batch: PairBatch,
  draws: Draws,
  active: ActiveTerms,
) -> tuple[TrainState, Metrics, Gradients]:
  """Performs one iteration on an augmented batch; pure, all randomness is in `draws`.

  Args:
    context: networks, optimizers and settings.
    state: state before the iteration.
    teachers: frozen; their soft labels are averaged.
    batch: the augmented images.
    draws: random draws of this step.
    active: `active_terms(config.ramps, step, config.optimizer.generator_steps)`.

  Returns:
    The state after the iteration; the metrics, which are each unweighted term's mean over the batch per stream, f[2],
    and their weighted `total`, f[]; and the gradients of generator, discriminator and re-id network (under jit, unused
    outputs cost nothing).
  """
  networks, config, optimizers = context.networks, context.config, context.optimizers
  weights = loss_weights(config.weights, config.ramps, config.teaching, state.step).terms
  losses = adversarial_losses(config.discriminator.gan_type, batch.image.shape[0])
  forward = _forward(context, state, batch, draws)
  discriminator, discriminator_gradients, discriminator_terms = _update_discriminator(
    context, losses, state.discriminator, batch.image, forward.generated.cross_by_appearance, weights['adversarial']
  )
  taught = active.teaching and (config.joint or config.teaching.images == 'ground_truth')
  labels = _labels(context, teachers, forward.generated, batch, draws) if taught else None
  match_features = config.weights.feature_matching > 0
  inputs = StepInputs(
    batch, forward.codes, forward.reid_stats, discriminator.params, labels, draws, teachers, match_features
  )
  # Exactly the terms of this phase, so that a missing one is an error.
  names = objectives.term_names(networks, active, taught=taught, match_features=match_features)
  phase_weights = {name: weights[name] for name in names}
  minimized = _minimize(context, losses, phase_weights, state, forward, inputs, active)
  new_state = TrainState(
    step=state.step + 1,
    generator=apply_gradients(optimizers.generator, state.generator, minimized.generator_gradients, {}),
    discriminator=discriminator,
    reid=apply_gradients(optimizers.reid, state.reid, minimized.reid_gradients, minimized.reid_stats),
    rng=state.rng,
  )
  metrics = stream_means(discriminator_terms | minimized.terms) | {'total': minimized.total}
  gradients = {
    'generator': minimized.generator_gradients,
    'discriminator': discriminator_gradients,
    'reid': minimized.reid_gradients,
  }
  return new_state, metrics, gradients


def draw_step(context: StepContext, state: TrainState, pixels: PixelBatch) -> tuple[PairBatch, Draws]:
  """Augments a batch and makes all other random draws of an iteration, from `fold_in(state.rng, state.step)`."""
  config = context.config
  keys = jax.random.split(jax.random.fold_in(state.rng, state.step), 7)
  augment_key, encoder_key, dropout_key, teacher_key, structure_key, cross_structure_key, moving_key = keys
  draws = Draws(
    update_structure_encoder=jax.random.uniform(encoder_key) <= config.structure_encoder_update_prob,
    dropout_key=dropout_key,
    teacher_dropout_key=teacher_key if config.teaching.teacher_dropout else None,
    structure_key=structure_key,
    cross_structure_key=cross_structure_key,
  )
  batch = augment_pairs(pixels, augment_key, config.augment, context.networks.reid_scale)
  if context.networks.generator.fetches:
    batch = dataclasses.replace(batch, moved=moved_copies(batch.image, moving_key))
  return batch, draws


def make_train_step(context: StepContext, mesh: jax.sharding.Mesh) -> TrainStep:
  """Returns the jitted iteration: (state, teachers, pixels, active) -> (state, metrics).

  The state is donated and stays replicated over `mesh`; pixels come sharded along their batch axis. It is compiled once
  for each value of `active`.
  """

  @functools.partial(
    jax.jit,
    static_argnums=3,
    donate_argnums=0,
    out_shardings=replicated(mesh),
    compiler_options=accepted_options(CONVOLUTIONS),
  )
  def train_step(
    state: TrainState, teachers: Sequence[Teacher], pixels: PixelBatch, active: ActiveTerms
  ) -> tuple[TrainState, Metrics]:
    batch, draws = draw_step(context, state, pixels)
    new_state, metrics, _ = update(context, state, teachers, batch, draws, active)
    if not (context.config.joint and active.generator):
      # XLA computes only what an output depends on, so this step is the re-id part of the full one.
      new_state = dataclasses.replace(new_state, generator=state.generator, discriminator=state.discriminator)
      metrics = {name: value for name, value in metrics.items() if name in REID_TERMS}
    return new_state, metrics

  return train_step
