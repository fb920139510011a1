"""What one iteration computes, in the order of computation: losses, gradients and updated networks, and their norms."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from dgnet_jax.training.checkpoint_arrays import named_leaves, not_finite
from dgnet_jax.training.learning import StepContext
from dgnet_jax.training.objectives import DISCRIMINATOR_TERMS
from dgnet_jax.training.step import draw_step, update
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher, TrainState
from dgnet_jax.utils.xla_options import CONVOLUTIONS, accepted_options


@dataclasses.dataclass(frozen=True)
class Quantity:
  """Something that an iteration computes.

  Attributes:
    kind: loss, gradient, or network: the updated parameters, running statistics and optimizer state.
    name: of the loss or the network.
    number: mean of a loss over the batch and the streams; L2 norm of a gradient, or of a network's parameters.
    broken: the arrays that are not finite.
    num_arrays: how many arrays there are.
  """

  kind: str
  name: str
  number: float
  broken: tuple[str, ...]
  num_arrays: int


def inspect_step(
  context: StepContext, state: TrainState, teachers: Sequence[Teacher], pixels: PixelBatch, active: ActiveTerms
) -> list[Quantity]:
  """Performs one iteration, with a program that also returns the gradients, and describes what it computes.

  The program is another one than that of training, so the last digits can differ.

  Args:
    context: from `make_step_context`.
    state: state before the iteration; it is not donated.
    teachers: of the run.
    pixels: the batch of the step.
    active: what the step trains.

  Returns:
    The quantities in the order in which they are computed: the discriminator is updated before it judges the images for
    the generator.
  """

  def step(state: TrainState, teachers: Sequence[Teacher], pixels: PixelBatch) -> tuple[Any, Any, Any]:
    batch, draws = draw_step(context, state, pixels)
    new_state, metrics, gradients = update(context, state, teachers, batch, draws, active)
    networks = {name: getattr(new_state, name) for name in gradients}
    return metrics, gradients, networks

  compiled = jax.jit(step, compiler_options=accepted_options(CONVOLUTIONS))
  metrics, gradients, networks = jax.device_get(compiled(state, teachers, pixels))
  return _in_order(metrics, gradients, networks)


def _in_order(
  metrics: Mapping[str, np.ndarray], gradients: Mapping[str, Any], networks: Mapping[str, Any]
) -> list[Quantity]:
  others = sorted(metrics.keys() - {*DISCRIMINATOR_TERMS, 'total'})
  quantities = []
  for terms, names in ((DISCRIMINATOR_TERMS, ('discriminator',)), ((*others, 'total'), ('generator', 'reid'))):
    trained = [name for name in names if name in gradients]
    quantities += [_loss(name, metrics[name]) for name in terms if name in metrics]
    quantities += [_tree('gradient', name, gradients[name], gradients[name]) for name in trained]
    quantities += [_tree('network', name, networks[name], networks[name].params) for name in trained]
  return quantities


def _loss(name: str, value: np.ndarray) -> Quantity:
  return Quantity('loss', name, float(np.mean(value)), () if np.isfinite(value).all() else (name,), 1)


def _tree(kind: str, name: str, arrays: Any, measured: Any) -> Quantity:
  return Quantity(kind, name, l2_norm(measured), tuple(not_finite(arrays)), len(named_leaves(arrays)))


def l2_norm(tree: Any) -> float:
  """Returns the L2 norm of host arrays, in float64: in float32 the squares of large finite numbers are infinite."""
  with np.errstate(invalid='ignore', over='ignore'):
    return float(np.sqrt(sum(np.square(np.asarray(x, np.float64)).sum() for x in jax.tree.leaves(tree))))
