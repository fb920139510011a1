"""One iteration as one jitted function: forward, discriminator update, then generator and re-id update.

The order is the release's: the discriminator learns from the cross images of this step, and the generator is judged by
the discriminator as it stands after that (release facts 1 and 6).
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dgnet_jax.config.schema import Config
from dgnet_jax.losses.adversarial import adversarial_losses
from dgnet_jax.losses.totals import weighted_total
from dgnet_jax.models.build import Networks, TeacherNetwork
from dgnet_jax.training import objectives
from dgnet_jax.training.augment import augment_pairs
from dgnet_jax.training.objectives import Draws, Terms, stream_means
from dgnet_jax.training.optimizers import Optimizers
from dgnet_jax.training.schedules import loss_weights
from dgnet_jax.training.soft_labels import soft_labels
from dgnet_jax.training.xla_options import compiler_options
from dgnet_jax.types import ActiveTerms, Array, NetworkState, PairBatch, PixelBatch, Teacher, TrainState

Metrics = dict[str, Array]
Gradients = dict[str, Any]

REID_TERMS = ('identity', 'positive_identity', 'fine_identity', 'primary_teaching', 'fine_teaching')


def _reduced_total(terms: Terms, weights: Any) -> Array:
  """The scalar that is minimised: weighted, mean over the batch, sum over the two streams."""
  return weighted_total(terms, {name: weights[name] for name in terms}).mean(0).sum()


def _apply(
  optimizer: optax.GradientTransformation, state: NetworkState, gradients: Any, batch_stats: Any
) -> NetworkState:
  updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  return NetworkState(optax.apply_updates(state.params, updates), batch_stats, opt_state)


def update(
  networks: Networks,
  teacher_network: TeacherNetwork,
  optimizers: Optimizers,
  config: Config,
  state: TrainState,
  teachers: Sequence[Teacher],
  batch: PairBatch,
  draws: Draws,
  active: ActiveTerms,
) -> tuple[TrainState, Metrics, Gradients]:
  """One iteration on an augmented batch; pure, everything random is an argument.

  Args:
    networks: from `make_networks`.
    teacher_network: from `make_teacher_network`.
    optimizers: from `make_optimizers`.
    config: weights, ramps, teaching, gan_type and r1_weight are read, while tracing.
    state: before the iteration.
    teachers: frozen; their soft labels are averaged.
    batch: the input.
    draws: of this step.
    active: `active_terms(config.ramps, step)`.

  Returns:
    The state after it; each unweighted term's batch mean per stream, f[2], and the summed loss totals, f[]; the
    gradients of generator, discriminator and re-id network, unused outputs of which cost nothing under jit.
  """
  weights = loss_weights(config.weights, config.ramps, config.teaching, state.step).terms
  losses = adversarial_losses(config.discriminator.gan_type, batch.image.shape[0])

  def encode(reid_params):
    return objectives.appearance_codes(networks, reid_params, state.reid.batch_stats, batch)

  codes, pull_back_codes, clean_stats = jax.vjp(encode, state.reid.params, has_aux=True)
  if not config.augment.random_erasing_prob:
    clean_stats = state.reid.batch_stats  # then the release makes these calls once, in `_reid_terms` (fact 3)

  def forward(params, codes):
    return objectives.generate(networks, params, batch.image, codes, draws.edge_key)

  generated, pull_back = jax.vjp(forward, state.generator.params, codes)

  def discriminator_objective(params):
    terms = objectives.discriminator_terms(
      networks, losses, params, batch.image, generated.cross_by_appearance, config.discriminator.r1_weight
    )
    return _reduced_total(terms, dict.fromkeys(terms, weights['adversarial'])), terms

  discriminator_gradients, discriminator_terms = jax.grad(discriminator_objective, has_aux=True)(
    state.discriminator.params
  )
  discriminator = _apply(optimizers.discriminator, state.discriminator, discriminator_gradients, {})

  labels = None
  if active.teaching and (config.joint or batch.true_cross is not None):
    labels = soft_labels(
      teacher_network,
      teachers,
      objectives.taught_images(generated, batch),
      batch.identity,
      style=config.teaching.label_style,
      norm=config.teaching.teacher_norm,
      dropout_key=draws.teacher_dropout_key,
    )

  def objective(generated, generator_params, reid_params):
    terms, batch_stats = objectives.generator_and_reid_terms(
      networks,
      generated,
      generator_params,
      reid_params,
      reid_stats=clean_stats,
      losses=losses,
      discriminator_params=discriminator.params,
      batch=batch,
      codes=codes,
      labels=labels,
      draws=draws,
      active=active,
    )
    return _reduced_total(terms, weights), (terms, batch_stats)

  (total, (terms, reid_stats)), (to_generated, direct, reid_gradients) = jax.value_and_grad(
    objective, argnums=(0, 1, 2), has_aux=True
  )(generated, state.generator.params, state.reid.params)
  through_forward, to_codes = pull_back(to_generated)
  generator_gradients = jax.tree.map(jnp.add, direct, through_forward)
  if networks.trains_through_code:
    reid_gradients = jax.tree.map(jnp.add, reid_gradients, pull_back_codes(to_codes)[0])

  new_state = TrainState(
    step=state.step + 1,
    generator=_apply(optimizers.generator, state.generator, generator_gradients, {}),
    discriminator=discriminator,
    reid=_apply(optimizers.reid, state.reid, reid_gradients, reid_stats),
    rng=state.rng,
  )
  metrics = stream_means(discriminator_terms | terms) | {'total': total}
  gradients = {
    'generator': generator_gradients,
    'discriminator': discriminator_gradients,
    'reid': reid_gradients,
  }
  return new_state, metrics, gradients


def draw_step(config: Config, state: TrainState, pixels: PixelBatch, reid_scale: int) -> tuple[PairBatch, Draws]:
  """Everything random of an iteration, from `fold_in(state.rng, state.step)`."""
  augment_key, encoder_key, dropout_key, teacher_key = jax.random.split(jax.random.fold_in(state.rng, state.step), 4)
  draws = Draws(
    update_structure_encoder=jax.random.uniform(encoder_key) <= config.structure_encoder_update_prob,
    dropout_key=dropout_key,
    teacher_dropout_key=teacher_key if config.teaching.teacher_dropout else None,
    edge_key=jax.random.fold_in(encoder_key, 1),
    cross_edge_key=jax.random.fold_in(encoder_key, 2),
  )
  return augment_pairs(pixels, augment_key, config.augment, reid_scale), draws


def make_train_step(
  networks: Networks, teacher_network: TeacherNetwork, optimizers: Optimizers, config: Config, mesh: jax.sharding.Mesh
) -> Callable[[TrainState, Sequence[Teacher], PixelBatch, ActiveTerms], tuple[TrainState, Metrics]]:
  """The jitted iteration: (state, teachers, pixels, active) -> (state, metrics).

  The state is donated and stays replicated over `mesh`; pixels come sharded along their batch axis. It is compiled once
  for each value of `active`.
  """
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

  @functools.partial(
    jax.jit,
    static_argnums=3,
    donate_argnums=0,
    out_shardings=replicated,
    compiler_options=compiler_options(),
  )
  def train_step(state, teachers, pixels, active):
    batch, draws = draw_step(config, state, pixels, networks.reid_scale)
    new_state, metrics, _ = update(networks, teacher_network, optimizers, config, state, teachers, batch, draws, active)
    if not config.joint:
      # What no output depends on is not computed: this step is the re-id network's part of the other.
      new_state = dataclasses.replace(new_state, generator=state.generator, discriminator=state.discriminator)
      metrics = {name: value for name, value in metrics.items() if name in REID_TERMS}
    return new_state, metrics

  return train_step
