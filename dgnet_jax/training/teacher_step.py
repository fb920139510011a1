"""One iteration of the teacher's training: a plain classifier of single images."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dgnet_jax.config.network_schema import TeacherConfig
from dgnet_jax.config.schema import Config
from dgnet_jax.losses.identity import identity_cross_entropy
from dgnet_jax.models.teacher import TeacherNetwork
from dgnet_jax.training.augment import augment_singles
from dgnet_jax.training.metric_terms import metric_names, metric_terms
from dgnet_jax.training.placement import Placement
from dgnet_jax.training.state import new_network_state, with_backbone
from dgnet_jax.types import Array, NetworkState, Params
from dgnet_jax.utils.xla_options import CONVOLUTIONS, accepted_options

Metrics = dict[str, Array]
TeacherStep = Callable[['TeacherState', Array, Array], tuple['TeacherState', Metrics]]


@flax.struct.dataclass
class TeacherState:
  """Everything that the teacher's training needs to resume.

  Attributes:
    step: i32[], iterations done.
    network: parameters, running statistics and optimizer state.
    rng: typed base key; all draws of a step derive from `fold_in(rng, step)`.
  """

  step: Array
  network: NetworkState
  rng: Array


def create_teacher_state(
  network: TeacherNetwork,
  optimizer: optax.GradientTransformation,
  seed: int,
  backbone: Mapping[str, Any] | None = None,
) -> TeacherState:
  """Creates the state at step 0; the same seed gives the same state.

  Args:
    network: from `make_teacher_network`.
    optimizer: from `make_teacher_optimizer`.
    seed: determines the initial parameters and all randomness of later steps.
    backbone: pretrained {'params', 'batch_stats'} of the backbone; None for random initial weights.
  """
  init_key, base_key = jax.random.split(jax.random.key(seed))
  params, batch_stats = with_backbone(*network.init(init_key), backbone)
  return TeacherState(jnp.zeros((), jnp.int32), new_network_state(params, batch_stats, optimizer), base_key)


def update(
  network: TeacherNetwork,
  optimizer: optax.GradientTransformation,
  state: TeacherState,
  image: Array,
  identity: Array,
  dropout_key: Array | None,
  teacher: TeacherConfig,
) -> tuple[TeacherState, Metrics]:
  """Performs one iteration on an augmented batch; pure, all randomness is an argument.

  Args:
    network: from `make_teacher_network`.
    optimizer: from `make_teacher_optimizer`.
    state: state before the iteration.
    image: f32[B, rH, rW, 3], at the network's input size.
    identity: i32[B].
    dropout_key: random key of dropout; None disables it.
    teacher: label smoothing and metric losses are read.

  Returns:
    The state after the iteration, and batch means, f32[] each: `loss` (nats), `accuracy` (fraction classified
    correctly) and, if there are metric losses, the terms of the loss, `loss/identity` and `loss/NAME`, unweighted.
  """
  names = metric_names(teacher)

  def objective(params: Params) -> tuple[Array, tuple[Params, Metrics]]:
    # A group axis of 1: the batch is one BatchNorm call.
    output, batch_stats = network.apply(
      params, state.network.batch_stats, image[:, None], norm='batch', dropout_key=dropout_key
    )
    logits = output.logits[:, 0]
    loss = identity_cross_entropy(
      logits, identity, split=network.splits_classifiers, smoothing=teacher.label_smoothing
    ).mean()
    metrics = {'accuracy': (logits.argmax(axis=-1) == identity).mean()} | ({'loss/identity': loss} if names else {})
    for name, term in metric_terms(names, teacher, output.metric_feature[:, 0], identity).items():
      metrics[f'loss/{name}'] = term.mean()
      loss += getattr(teacher, name) * metrics[f'loss/{name}']
    return loss, (batch_stats, metrics)

  gradient_fn = jax.value_and_grad(objective, has_aux=True)
  (loss, (batch_stats, metrics)), gradients = gradient_fn(state.network.params)
  updates, opt_state = optimizer.update(gradients, state.network.opt_state, state.network.params)
  params = optax.apply_updates(state.network.params, updates)
  new_state = TeacherState(state.step + 1, NetworkState(params, batch_stats, opt_state), state.rng)
  return new_state, {'loss': loss, **metrics}


def make_teacher_step(
  network: TeacherNetwork, optimizer: optax.GradientTransformation, config: Config, mesh: jax.sharding.Mesh
) -> TeacherStep:
  """Returns the jitted iteration: (state, pixels u8[B, H, W, 3], identity i32[B]) -> (state, metrics).

  The state is donated and stays where `Placement` puts it; pixels and identities come sharded along their batch axis.
  """
  placement = Placement(mesh, network.num_identities)
  outputs = placement.step_outputs(lambda: create_teacher_state(network, optimizer, seed=0))
  network = network.splitting_classifiers(mesh) if placement.splits else network
  augment_config, teacher = config.augment, config.teacher

  def teacher_step(state: TeacherState, pixels: Array, identity: Array) -> tuple[TeacherState, Metrics]:
    state = placement.within_step(state)
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
    image = augment_singles(pixels, augment_key, augment_config, teacher.random_erasing_prob, network.reid_scale)
    new_state, metrics = update(network, optimizer, state, image, identity, dropout_key, teacher)
    return placement.after_step(new_state), metrics

  return jax.jit(teacher_step, donate_argnums=0, out_shardings=outputs, compiler_options=accepted_options(CONVOLUTIONS))
