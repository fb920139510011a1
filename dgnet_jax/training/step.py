"""One iteration as one jitted function: forward pass, discriminator update, then generator and re-id update.

The order is the release's: the discriminator learns from the cross images of this step, and the generator is judged by
the updated discriminator (release facts 1 and 6).
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools

import jax

from dgnet_jax.config.schema import Config
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.training.augment import augment_pairs, moved_copies
from dgnet_jax.training.forward import Draws
from dgnet_jax.training.learning import StepContext, apply_gradients, learn, learn_in_parts, make_iteration
from dgnet_jax.training.objectives import stream_means
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.placement import Placement
from dgnet_jax.training.skipped_updates import keep_if_not_finite
from dgnet_jax.training.state import create_train_state
from dgnet_jax.types import ActiveTerms, Array, PairBatch, Params, PixelBatch, Teacher, TrainState
from dgnet_jax.utils.xla_options import CONVOLUTIONS, accepted_options

Metrics = dict[str, Array]
Gradients = dict[str, Params]
TrainStep = Callable[[TrainState, Sequence[Teacher], PixelBatch, ActiveTerms], tuple[TrainState, Metrics]]

REID_TERMS = (
  *('identity', 'positive_identity', 'fine_identity', 'primary_teaching', 'fine_teaching'),
  *('triplet', 'fine_triplet', 'circle', 'fine_circle'),
)


def make_step_context(config: Config, num_identities: int) -> StepContext:
  """Builds the networks and optimizers of a run on data with `num_identities` identities."""
  return StepContext(
    make_networks(config, num_identities),
    make_teacher_network(config, num_identities),
    make_optimizers(config),
    config,
  )


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
    outputs cost nothing). If generator and discriminator are not trained, all this is of the re-id network alone.
  """
  config, optimizers = context.config, context.optimizers
  iteration = make_iteration(context, state, teachers, batch, active)
  learn_from = learn_in_parts if config.micro_batches > 1 else learn
  learned = learn_from(iteration, state, batch, draws)
  minimized, gradients = learned.minimized, {'reid': learned.minimized.reid_gradients}
  new_state = dataclasses.replace(
    state,
    step=state.step + 1,
    reid=apply_gradients(optimizers.reid, state.reid, minimized.reid_gradients, minimized.reid_stats),
  )
  if not iteration.trains_generator:
    return (
      new_state,
      stream_means({name: minimized.terms[name] for name in REID_TERMS if name in minimized.terms}),
      gradients,
    )
  new_state = dataclasses.replace(
    new_state,
    generator=apply_gradients(optimizers.generator, state.generator, minimized.generator_gradients, {}),
    discriminator=learned.discriminator,
  )
  metrics = stream_means(learned.discriminator_terms | minimized.terms) | {'total': minimized.total}
  gradients |= {'generator': minimized.generator_gradients, 'discriminator': learned.discriminator_gradients}
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

  The state is donated and stays where `Placement` puts it; pixels come sharded along their batch axis. It is compiled
  once for each value of `active`. With `optimizer.skip_non_finite`, an update that is not finite is skipped, and the
  metrics are also those of `keep_if_not_finite`.
  """
  placement = Placement(mesh, context.networks.num_identities)
  outputs = placement.step_outputs(lambda: create_train_state(context.networks, context.optimizers, seed=0))
  if placement.splits:
    context = dataclasses.replace(
      context,
      networks=context.networks.splitting_classifiers(mesh),
      teacher_network=context.teacher_network.splitting_classifiers(mesh),
    )

  @functools.partial(
    jax.jit,
    static_argnums=3,
    donate_argnums=0,
    out_shardings=outputs,
    compiler_options=accepted_options(CONVOLUTIONS),
  )
  def train_step(
    state: TrainState, teachers: Sequence[Teacher], pixels: PixelBatch, active: ActiveTerms
  ) -> tuple[TrainState, Metrics]:
    state, teachers = placement.within_step((state, teachers))
    batch, draws = draw_step(context, state, pixels)
    new_state, metrics, gradients = update(context, state, teachers, batch, draws, active)
    if context.config.optimizer.skip_non_finite:
      new_state, metrics = keep_if_not_finite(state, new_state, metrics, gradients)
    return placement.after_step(new_state), metrics

  return train_step
