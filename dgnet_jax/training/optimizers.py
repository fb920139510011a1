"""Optimizers of DG-Net and of the teacher, with the arithmetic of PyTorch (release fact 36).

Weight decay is *coupled*: it is added to the gradient of every parameter before the moments are updated.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, TypeAlias, cast

import jax
import jax.numpy as jnp
import optax
from optax import tree_utils

from dgnet_jax.config.schema import OptimizerConfig, TeacherConfig
from dgnet_jax.training.schedules import Number, learning_rates, teacher_schedule
from dgnet_jax.types import Array, Params

ADAM_EPSILON = 1e-8
Moments: TypeAlias = optax.ScaleByAdamState | optax.TraceState


@dataclasses.dataclass(frozen=True)
class Optimizers:
  """One gradient transformation per NetworkState."""

  generator: optax.GradientTransformation
  discriminator: optax.GradientTransformation
  reid: optax.GradientTransformation


def scale_parts(multipliers: Mapping[str, float], others: float = 1.0) -> optax.GradientTransformation:
  """Scales the updates of the top-level parts of a parameter tree.

  Args:
    multipliers: factor by the name of the part.
    others: factor of all other parts.

  Returns:
    A stateless transformation. Its update raises ValueError if the tree lacks one of the named parts.
  """

  def scale(updates: optax.Updates, _: optax.Params | None = None) -> optax.Updates:
    parts = cast(Params, updates)
    unknown = sorted(multipliers.keys() - parts.keys())
    if unknown:
      raise ValueError(f'no parts {unknown} among {sorted(parts)}')
    scaled: Params = jax.tree.map_with_path(lambda path, x: multipliers.get(path[0].key, others) * x, parts)
    return cast(optax.Updates, scaled)

  return optax.stateless(scale)


def coupled_adam(
  schedule: optax.Schedule, *, betas: tuple[float, float], weight_decay: float
) -> optax.GradientTransformation:
  """Adam with coupled weight decay on all parameters.

  Args:
    schedule: learning rate by the number of updates done.
    betas: decay rates of the first and second moment.
    weight_decay: factor of the parameters.
  """
  first, second = betas
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_adam(first, second, ADAM_EPSILON),
    optax.scale_by_learning_rate(schedule),
  )


def coupled_nesterov(
  schedule: optax.Schedule,
  *,
  momentum: float,
  weight_decay: float,
  multipliers: Mapping[str, float],
  others: float = 1.0,
) -> optax.GradientTransformation:
  """SGD with Nesterov momentum and coupled weight decay; the buffer starts as the first gradient.

  Args:
    schedule: learning rate by the number of updates done.
    momentum: decay rate of the buffer.
    weight_decay: factor of the parameters.
    multipliers: factor of the rate by top-level part of the parameter tree.
    others: factor of the rate of all other parts.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.trace(momentum, nesterov=True),
    scale_parts(multipliers, others),
    optax.scale_by_learning_rate(schedule),
  )


def make_optimizers(config: OptimizerConfig) -> Optimizers:
  """Returns the optimizers of DG-Net. Each counts its own updates; that count is the step of its schedule."""

  def rate_of(network: str) -> optax.Schedule:
    def schedule(count: Any) -> Number:
      return learning_rates(config, count)[network]

    return schedule

  def adam(network: str) -> optax.GradientTransformation:
    return coupled_adam(rate_of(network), betas=config.adam_betas, weight_decay=config.weight_decay)

  return Optimizers(
    generator=adam('generator'),
    discriminator=adam('discriminator'),
    reid=coupled_nesterov(
      rate_of('reid'),
      momentum=config.reid_momentum,
      weight_decay=config.weight_decay,
      multipliers={'backbone': 1.0},
      others=config.head_multiplier,
    ),
  )


def make_teacher_optimizer(
  teacher: TeacherConfig, optimizer: OptimizerConfig, steps_per_epoch: int
) -> optax.GradientTransformation:
  """Returns the teacher's SGD with Nesterov momentum.

  Args:
    teacher: learning rates and epochs.
    optimizer: momentum and weight decay, which are those of the re-id network.
    steps_per_epoch: batches in a pass over the training images.
  """
  return coupled_nesterov(
    teacher_schedule(teacher, steps_per_epoch),
    momentum=optimizer.reid_momentum,
    weight_decay=optimizer.weight_decay,
    multipliers={'backbone': teacher.backbone_multiplier},
  )


def adam_state(opt_state: optax.OptState) -> optax.ScaleByAdamState:
  """Returns the moments `mu` and `nu` (PyTorch: exp_avg, exp_avg_sq) and the `count` of updates in Adam's state."""
  return cast(optax.ScaleByAdamState, tree_utils.tree_get(opt_state, 'ScaleByAdamState'))


def momentum_buffers(opt_state: optax.OptState) -> Params:
  """Returns the momentum buffers in the state of `coupled_nesterov`, with the structure of the parameters."""
  return cast(Params, tree_utils.tree_get(opt_state, 'TraceState').trace)


def with_progress(opt_state: optax.OptState, step: int | Array, moments: Moments | None = None) -> optax.OptState:
  """Sets the update count of a fresh optimizer state, and optionally its moments.

  Args:
    opt_state: a state of `coupled_adam` or `coupled_nesterov`.
    step: number of updates done, which the learning-rate schedule counts.
    moments: replaces the moments; None leaves them as they are.
  """
  count = optax.ScaleByScheduleState(count=jnp.asarray(step, jnp.int32))
  opt_state = tree_utils.tree_set(opt_state, ScaleByScheduleState=count)
  if moments is None:
    return opt_state
  return tree_utils.tree_set(opt_state, **{type(moments).__name__: jax.tree.map(jnp.asarray, moments)})
