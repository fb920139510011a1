"""The initial state of a run: three networks, their optimizers, the step and the base random key."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dgnet_jax.models.networks import Networks
from dgnet_jax.training.optimizers import Optimizers
from dgnet_jax.types import NetworkState, Params, TrainState


def new_network_state(params: Params, batch_stats: Params, optimizer: optax.GradientTransformation) -> NetworkState:
  """Returns a network's state before its first update."""
  return NetworkState(params, batch_stats, jax.jit(optimizer.init)(params))


def with_backbone(params: Params, batch_stats: Params, backbone: Mapping[str, Any] | None) -> tuple[Params, Params]:
  """Replaces the backbone in a network's variables.

  Args:
    params: parameters of the network, with the part `backbone`.
    batch_stats: its running statistics, with the same part.
    backbone: {'params', 'batch_stats'} of the new backbone; None changes nothing.
  """
  if backbone is None:
    return params, batch_stats
  backbone = jax.tree.map(jnp.asarray, backbone)
  return {**params, 'backbone': backbone['params']}, {**batch_stats, 'backbone': backbone['batch_stats']}


def create_train_state(
  networks: Networks, optimizers: Optimizers, seed: int, backbone: Mapping[str, Any] | None = None
) -> TrainState:
  """Creates the state at step 0; the same seed gives the same state.

  Args:
    networks: from `make_networks`.
    optimizers: from `make_optimizers`.
    seed: determines the initial parameters and all randomness of later steps.
    backbone: pretrained {'params', 'batch_stats'} of the re-id network's backbone; None for random initial weights.
  """
  generator_key, discriminator_key, reid_key, base_key = jax.random.split(jax.random.key(seed), 4)
  reid_params, reid_stats = with_backbone(*networks.init_reid(reid_key), backbone)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    generator=new_network_state(networks.init_generator(generator_key), {}, optimizers.generator),
    discriminator=new_network_state(networks.init_discriminator(discriminator_key), {}, optimizers.discriminator),
    reid=new_network_state(reid_params, reid_stats, optimizers.reid),
    rng=base_key,
  )
