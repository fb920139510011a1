"""Optimizers of DG-Net and of the teacher, with the arithmetic of PyTorch (release fact 36).

Weight decay is *coupled*: it is added to the gradient of every parameter before the moments are updated.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, TypeAlias, cast

import jax
import jax.numpy as jnp
import optax
from optax import contrib, tree_utils

from dgnet_jax.config.network_schema import TeacherConfig
from dgnet_jax.config.schema import Config, OptimizerConfig
from dgnet_jax.training.schedules import Number, learning_rates, teacher_schedule
from dgnet_jax.types import Array, Params

ADAM_EPSILON = 1e-8
MUON_OUTPUTS = 16  # kernels with fewer outputs make colours, places and masks: not hidden layers
MUON_UPDATE = 0.2  # root mean square of Muon's updates at rate 1, as Adam's usually are
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


def coupled_muon(
  schedule: optax.Schedule, *, multiplier: float, betas: tuple[float, float], weight_decay: float
) -> optax.GradientTransformation:
  """Muon with coupled weight decay on the kernels of hidden layers, Adam with Nesterov momentum on everything else.

  Muon (Jordan et al., 2024) makes the momentum of a kernel, as a matrix from inputs to outputs, orthogonal, so that all
  directions are learned equally fast. Its updates are scaled to the usual size of Adam's (Liu et al., 2025).

  Args:
    schedule: Adam's learning rate by the number of updates done.
    multiplier: Muon's rate is this multiple of Adam's.
    betas: decay rates of Adam's first and second moment.
    weight_decay: factor of the parameters.
  """
  first, second = betas

  def matrices(params: optax.Params) -> optax.Params:
    def dimensions(x: Array) -> contrib.MuonDimensionNumbers | None:
      is_hidden = x.ndim > 1 and x.shape[-1] >= MUON_OUTPUTS
      return contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1) if is_hidden else None

    return cast(optax.Params, jax.tree.map(dimensions, params))

  def faster(count: Any) -> Any:
    return multiplier * schedule(count)

  muon = contrib.muon(
    faster,
    muon_weight_dimension_numbers=matrices,
    consistent_rms=MUON_UPDATE,
    adam_learning_rate=schedule,
    adam_b1=first,
    adam_b2=second,
  )
  return optax.chain(optax.add_decayed_weights(weight_decay), muon)


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


def make_optimizers(config: Config) -> Optimizers:
  """Returns the optimizers of DG-Net. Each counts its own updates; that count is the step of its schedule.

  Args:
    config: optimizer and num_steps are read.
  """
  optimizer = config.optimizer

  def rate_of(network: str) -> optax.Schedule:
    def schedule(count: Any) -> Number:
      return learning_rates(config, count)[network]

    return schedule

  def adam(network: str) -> optax.GradientTransformation:
    return coupled_adam(rate_of(network), betas=optimizer.adam_betas, weight_decay=optimizer.weight_decay)

  generator = adam('generator')
  if optimizer.muon_multiplier:
    generator = coupled_muon(
      rate_of('generator'),
      multiplier=optimizer.muon_multiplier,
      betas=optimizer.adam_betas,
      weight_decay=optimizer.weight_decay,
    )
  return Optimizers(
    generator=generator,
    discriminator=adam('discriminator'),
    reid=coupled_nesterov(
      rate_of('reid'),
      momentum=optimizer.reid_momentum,
      weight_decay=optimizer.weight_decay,
      multipliers={'backbone': 1.0},
      others=optimizer.head_multiplier,
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
