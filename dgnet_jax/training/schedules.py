"""Loss weights, active terms and learning rates as functions of the step.

Steps count from 0. Nothing here is state, so a resumed run continues with the same numbers.
"""

from collections.abc import Mapping
import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dgnet_jax.config.network_schema import TeacherConfig
from dgnet_jax.config.schema import Config, OptimizerConfig, RampConfig, RampsConfig, TeachingConfig, WeightsConfig
from dgnet_jax.types import ActiveTerms, Array

Number = Array | float


@flax.struct.dataclass
class LossWeights:
  """The factor of each loss term, and each ramped weight before and after the increment of the step; f32[] by name.

  The release increments a ramped weight between computing the terms and summing them (fact 7): it skips a term while
  the weight *before* the increment is 0, but multiplies it by the weight *after* the increment.
  """

  terms: Mapping[str, Number]
  before: Mapping[str, Number]
  after: Mapping[str, Number]


def _ramp_after(ramp: RampConfig, step: int | Array) -> Number:
  """Returns the value of a ramp after the increment of `step`; the initial value if `step` is negative."""
  xp = jnp if isinstance(step, jax.Array) else np
  grown = xp.minimum(ramp.initial + ramp.per_step * (step - ramp.start_step), ramp.maximum)
  value: Array = xp.where(step > ramp.start_step, grown, ramp.initial)
  return value if isinstance(step, jax.Array) else float(value)


def loss_weights(
  weights: WeightsConfig, ramps: RampsConfig, teaching: TeachingConfig, step: int | Array
) -> LossWeights:
  """Returns all loss weights of one step.

  Args:
    weights: constant weights.
    ramps: weights that grow.
    teaching: shares of the teaching weight.
    step: iterations done before this one; int or i32[], traced or not.

  Returns:
    LossWeights of floats for an int step, of f32[] for an array.
  """
  before = {name: _ramp_after(ramp, step - 1) for name, ramp in ramps.by_name().items()}
  after = {name: _ramp_after(ramp, step) for name, ramp in ramps.by_name().items()}
  # In the step in which a weight leaves 0 its term does not count yet.
  effective = {name: (before[name] > 0) * after[name] for name in after}
  terms: dict[str, Number] = {field.name: getattr(weights, field.name) for field in dataclasses.fields(weights)}
  terms |= {name: effective[name] for name in ('structure_code', 'appearance_code', 'cycle')}
  terms['cycle_dissimilarity'] = terms['dissimilarity']
  # On real images the fine-grained head is weighted by the teaching weight before the increment (fact 8).
  for name in ('identity', 'triplet', 'circle'):
    terms[f'fine_{name}'] = terms[name] * before['teaching'] * teaching.fine_grained * teaching.fine_on_real
  terms['primary_teaching'] = effective['teaching'] * teaching.primary
  terms['fine_teaching'] = effective['teaching'] * teaching.fine_grained
  return LossWeights(terms, before, after)


def active_terms(ramps: RampsConfig, step: int, generator_steps: int = 0) -> ActiveTerms:
  """Returns what a step trains, and which ramped terms count: those whose weight is above 0 before its increment.

  Args:
    ramps: weights that grow.
    step: iterations done before this one.
    generator_steps: as in the optimizer's section of the config.
  """
  active = {name: _ramp_after(ramp, step - 1) > 0 for name, ramp in ramps.by_name().items()}
  generator = not 0 < generator_steps <= step
  return ActiveTerms(
    generator=generator,
    codes=generator and bool(active['structure_code'] or active['appearance_code']),
    cycle=generator and bool(active['cycle']),
    teaching=bool(active['teaching']),
  )


def phase_boundaries(ramps: RampsConfig, num_steps: int, generator_steps: int = 0) -> list[int]:
  """Returns the steps of a run, in order, at which the active terms change; each costs a compilation."""
  # A ramp first grows in start_step + 1, so its weight is above 0 before the increment of start_step + 2.
  candidates = sorted({generator_steps} | {ramp.start_step + 2 for ramp in ramps.by_name().values()})

  def active(step: int) -> ActiveTerms:
    return active_terms(ramps, step, generator_steps)

  return [step for step in candidates if 0 < step < num_steps and active(step) != active(step - 1)]


def _num_drops(optimizer: OptimizerConfig, step: int | Array) -> int | Array:
  """Returns how many times the rates have dropped by `step`.

  Computed by hand because optax's schedules are not exact here: `piecewise_constant_schedule` has no repeated
  boundaries, and `exponential_decay` floors a float32 quotient.
  """
  # The release advances its scheduler before the update, so every drop comes one step early (fact 2).
  scheduler_step = step + 1
  period = optimizer.decay_steps
  if optimizer.schedule == 'constant':
    return 0
  if optimizer.schedule == 'step':
    return scheduler_step // period
  milestones = (period, period + period // 2, period + period // 2 + period // 4)
  return sum((scheduler_step >= milestone) * 1 for milestone in milestones)


def _half_cosine(step: int | Array, start: int, end: int, final: float = 0.0) -> Number:
  """Returns half a cosine from 1 at step `start` to `final` at step `end`; constant before and after."""
  xp = jnp if isinstance(step, jax.Array) else np
  done = xp.clip((step - start) / (end - start), 0, 1)
  factor: Array = final + (1 - final) * (1 + xp.cos(np.pi * done)) / 2
  return factor if isinstance(step, jax.Array) else float(factor)


def _reid_factor(config: Config, step: int | Array, drops: int | Array) -> Number:
  """Returns the factor of the re-id network's rate, with its warm-up from a tenth."""
  optimizer, warmup_steps = config.optimizer, config.optimizer.reid_warmup_steps
  factor: Number = optimizer.reid_decay**drops
  if optimizer.reid_schedule == 'cosine':
    factor = _half_cosine(step, warmup_steps, config.num_steps)
  if not warmup_steps:
    return factor
  xp = jnp if isinstance(step, jax.Array) else np
  warmup: Array = xp.clip(0.1 + 0.9 * step / warmup_steps, 0.1, 1.0)
  return factor * (warmup if isinstance(step, jax.Array) else float(warmup))


def learning_rates(config: Config, step: int | Array) -> dict[str, Number]:
  """Returns the learning rates of one step.

  Schedule multistep drops at `decay_steps` and at 1.5 and 1.75 times it (milestones that coincide multiply), schedule
  step at every multiple of `decay_steps`, both one step early, as in the release (fact 2). The rates of generator and
  discriminator, and that of the re-id network, may follow a cosine instead.

  Args:
    config: optimizer and num_steps are read.
    step: iterations done before this one; int or i32[], traced or not. -1 gives the rates before the run.

  Returns:
    The rates of 'generator', 'discriminator' and 'reid' (its backbone; the heads' are `head_multiplier` times it).
  """
  optimizer = config.optimizer
  drops = _num_drops(optimizer, step)
  gan_factor: Number = optimizer.gan_decay**drops
  if optimizer.gan_schedule == 'cosine':
    gan_factor = _half_cosine(step, 0, optimizer.generator_steps, optimizer.gan_decay)
  return {
    'generator': optimizer.generator_learning_rate * gan_factor,
    'discriminator': optimizer.discriminator_learning_rate * gan_factor,
    'reid': optimizer.reid_learning_rate * _reid_factor(config, step, drops),
  }


def teacher_schedule(teacher: TeacherConfig, steps_per_epoch: int) -> optax.Schedule:
  """Returns the learning rate of the teacher's head by step.

  Linear warm-up from a tenth; then one drop to a tenth, or half a cosine to 0 at the end of the last epoch. Computed by
  hand because `optax.linear_schedule` divides in float32 even if float64 is enabled.

  Args:
    teacher: rate, schedule and epochs.
    steps_per_epoch: batches in an epoch.
  """
  warmup_steps, decay_step = (epochs * steps_per_epoch for epochs in (teacher.warmup_epochs, teacher.decay_epoch))

  def schedule(step: int | Array) -> Array:
    warmup = jnp.minimum(0.1 + 0.9 * step / warmup_steps, 1.0) if warmup_steps else jnp.ones(())
    if teacher.schedule == 'cosine':
      return teacher.learning_rate * warmup * _half_cosine(step, warmup_steps, teacher.num_epochs * steps_per_epoch)
    return teacher.learning_rate * warmup * 0.1 ** ((step >= decay_step) * 1)

  return schedule
