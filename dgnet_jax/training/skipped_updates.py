"""Updates that are skipped because something in them is not finite (`optimizer.skip_non_finite`)."""

from collections.abc import Mapping
import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
from optax import tree_utils

from dgnet_jax.types import Array, Params, TrainState

SKIPPED = 'skipped'  # metric; with /NETWORK, whether that network's gradient or update is not finite
NETWORKS = ('generator', 'discriminator', 'reid')


def all_finite(tree: Any) -> Array:
  """Returns bool[]: True if all real numbers in a pytree of arrays are finite."""
  flags = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
  return jnp.stack(flags).all() if flags else jnp.bool_(True)


def keep_if_not_finite(
  old: TrainState, new: TrainState, metrics: Mapping[str, Array], gradients: Mapping[str, Params]
) -> tuple[TrainState, dict[str, Array]]:
  """Undoes an iteration, but for the step, if its losses, its gradients or the new state are not finite.

  Networks learn from each other, so either all are updated or none is.

  Args:
    old: state before the iteration.
    new: state after it.
    metrics: losses of the iteration.
    gradients: by network.

  Returns:
    The new state, or the old one with the new step; and the metrics, with `skipped` and, for each network,
    `skipped/NETWORK`, bool[].
  """
  broken = {name: ~all_finite((gradients.get(name), getattr(new, name))) for name in NETWORKS}
  skipped = ~all_finite(metrics) | jnp.stack(list(broken.values())).any()

  def choose(before: Array, after: Array) -> Array:
    return jnp.where(skipped, before, after)

  kept = {name: jax.tree.map(choose, getattr(old, name), getattr(new, name)) for name in NETWORKS}
  flags = {SKIPPED: skipped} | {f'{SKIPPED}/{name}': flag for name, flag in broken.items()}
  return dataclasses.replace(new, **kept), {**metrics, **flags}


def num_skipped(state: TrainState) -> int:
  """Returns how many updates of a run were skipped: the re-id optimizer, which is used in all steps, counts the others.

  So a resumed run knows it, and checkpoints hold nothing more.
  """
  count = cast(Any, tree_utils.tree_get(state.reid.opt_state, 'ScaleByScheduleState')).count
  return int(state.step) - int(count)
