"""The explicit state of a run: three networks with their optimisers, the step and the base random key."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dgnet_jax.models.build import Networks
from dgnet_jax.training.optimizers import Optimizers
from dgnet_jax.types import NetworkState, Params, TrainState


def _network_state(params: Params, batch_stats: Params, optimizer: Any) -> NetworkState:
  return NetworkState(params, batch_stats, jax.jit(optimizer.init)(params))


def with_backbone(params: Params, batch_stats: Params, backbone: Mapping[str, Any] | None) -> tuple[Params, Params]:
  """A network's variables with the backbone's exchanged for {'params', 'batch_stats'}; unchanged without one."""
  if backbone is None:
    return params, batch_stats
  backbone = jax.tree.map(jnp.asarray, backbone)
  return {**params, 'backbone': backbone['params']}, {**batch_stats, 'backbone': backbone['batch_stats']}


def create_train_state(
  networks: Networks, optimizers: Optimizers, seed: int, backbone: Mapping[str, Any] | None = None
) -> TrainState:
  """A fresh state at step 0; two calls with one seed agree.

  Args:
    networks: from `make_networks`.
    optimizers: from `make_optimizers`.
    seed: of the run; initial parameters and all that later steps draw derive from it.
    backbone: pretrained {'params', 'batch_stats'} of the re-id network's backbone; None starts from scratch.
  """
  generator_key, discriminator_key, reid_key, base_key = jax.random.split(jax.random.key(seed), 4)
  reid_params, reid_stats = with_backbone(*networks.init_reid(reid_key), backbone)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    generator=_network_state(networks.init_generator(generator_key), {}, optimizers.generator),
    discriminator=_network_state(networks.init_discriminator(discriminator_key), {}, optimizers.discriminator),
    reid=_network_state(reid_params, reid_stats, optimizers.reid),
    rng=base_key,
  )
