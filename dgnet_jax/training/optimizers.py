"""The three optimisers, and the teacher's, with PyTorch's arithmetic (release fact 36).

Weight decay is *coupled*: added to the gradient of every parameter before the moments see it.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dgnet_jax.config.schema import Config
from dgnet_jax.training.schedules import learning_rates, teacher_learning_rate
from dgnet_jax.types import Array, Params

ADAM_BETAS = (0.0, 0.999)
ADAM_EPSILON = 1e-8
Schedule = Callable[[Array], Array | float]


@dataclasses.dataclass(frozen=True)
class Optimizers:
  """One gradient transformation for each NetworkState."""

  generator: optax.GradientTransformation
  discriminator: optax.GradientTransformation
  reid: optax.GradientTransformation


def scale_parts(multipliers: Mapping[str, float], others: float = 1.0) -> optax.GradientTransformation:
  """Multiplies the updates of the named top-level parts of a parameter tree, and by `others` those of the rest.

  Raises (when used):
    ValueError: a named part is not in the tree.
  """

  def scale(updates: Params, _: Any = None) -> Params:
    unknown = sorted(multipliers.keys() - updates.keys())
    if unknown:
      raise ValueError(f'{unknown} not among the parts {sorted(updates)}')
    return jax.tree.map_with_path(lambda path, update: multipliers.get(path[0].key, others) * update, updates)

  return optax.stateless(scale)


def coupled_adam(schedule: Schedule, weight_decay: float) -> optax.GradientTransformation:
  """Adam without momentum, as the GAN's two optimisers use it.

  Args:
    schedule: learning rate of the n-th update, n from 0.
    weight_decay: coupled, on all parameters.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_adam(*ADAM_BETAS, eps=ADAM_EPSILON),
    optax.scale_by_learning_rate(schedule),
  )


def coupled_nesterov(
  schedule: Schedule, *, momentum: float, weight_decay: float, multipliers: Mapping[str, float], others: float = 1.0
) -> optax.GradientTransformation:
  """SGD with Nesterov momentum; the first buffer is the first gradient.

  Args:
    schedule: learning rate of the n-th update, n from 0.
    momentum: share of the old buffer.
    weight_decay: coupled, on all parameters.
    multipliers: of the rate, by top-level part of the parameter tree.
    others: multiplier of the parts not named.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.trace(momentum, nesterov=True),
    scale_parts(multipliers, others),
    optax.scale_by_learning_rate(schedule),
  )


def make_optimizers(config: Config) -> Optimizers:
  """The optimisers of the main job; each counts its own updates, which is the step.

  Args:
    config: `optimizer` is read, while tracing.
  """
  settings = config.optimizer

  def rate_of(name: str) -> Schedule:
    return lambda count: learning_rates(config, count)[name]

  return Optimizers(
    generator=coupled_adam(rate_of('generator'), settings.weight_decay),
    discriminator=coupled_adam(rate_of('discriminator'), settings.weight_decay),
    reid=coupled_nesterov(
      rate_of('reid'),
      momentum=settings.reid_momentum,
      weight_decay=settings.weight_decay,
      multipliers={'backbone': 1.0},
      others=settings.head_multiplier,
    ),
  )


def make_teacher_optimizer(config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
  """The teacher's SGD with Nesterov momentum.

  Args:
    config: `teacher`, and momentum and decay of `optimizer`, are read, while tracing.
    steps_per_epoch: batches in a pass over the training images.
  """
  return coupled_nesterov(
    lambda count: teacher_learning_rate(config, steps_per_epoch, count),
    momentum=config.optimizer.reid_momentum,
    weight_decay=config.optimizer.weight_decay,
    multipliers={'backbone': config.teacher.backbone_multiplier},
  )


def adam_slots(opt_state: Any) -> tuple[Params, Params]:
  """A `coupled_adam` state's first and second moments (PyTorch's exp_avg and exp_avg_sq)."""
  slots = next(part for part in opt_state if isinstance(part, optax.ScaleByAdamState))
  return slots.mu, slots.nu


def adam_count(opt_state: Any) -> Array:
  """i32[], the updates that a `coupled_adam` state has seen."""
  return next(part for part in opt_state if isinstance(part, optax.ScaleByAdamState)).count


def with_slots(opt_state: Any, step: int, slots: Mapping[str, Any]) -> Any:
  """A fresh optimiser state of this file at another step, with what was gathered until then.

  Args:
    opt_state: of `coupled_adam` or `coupled_nesterov`, at step 0.
    step: updates done, for the learning rates.
    slots: of Adam `mu`, `nu` and `count` (its own updates); of Nesterov `trace`. Empty leaves what was there.
  """

  def at_step(part: Any) -> Any:
    if isinstance(part, optax.ScaleByScheduleState):
      return part._replace(count=jnp.full_like(part.count, step))
    if isinstance(part, optax.ScaleByAdamState | optax.TraceState):
      return part._replace(**{name: jax.tree.map(jnp.asarray, value) for name, value in slots.items()})
    return part

  return tuple(at_step(part) for part in opt_state)


def momentum_slots(opt_state: Any) -> Params:
  """A `coupled_nesterov` state's momentum buffers."""
  return next(part for part in opt_state if isinstance(part, optax.TraceState)).trace
