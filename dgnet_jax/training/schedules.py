"""What changes with time, as functions of the step: loss weights, learning rates, and which terms count.

Steps are 0-based. Nothing here is state, so a resumed run goes on with the very same numbers.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.types import ActiveTerms, Array

CONSTANT_WEIGHTS = (
  'adversarial',
  'self_reconstruction',
  'positive_reconstruction',
  'cross_identity',
  'identity',
  'positive_identity',
)
Number = Array | float


@flax.struct.dataclass
class LossWeights:
  """f32[] by name. terms: what each loss term is multiplied by. before, after: each ramp around this step's increment.

  The release increments a ramped weight between building the terms and summing them (fact 7): a term is skipped while
  its weight *before* the increment is 0, yet multiplied by the weight *after* it.
  """

  terms: Mapping[str, Number]
  before: Mapping[str, Number]
  after: Mapping[str, Number]


def _ramp_after(ramp: Any, step: int | Array) -> Number:
  """A ramp's value after the increment of `step`; negative steps are before the run."""
  xp = jnp if isinstance(step, jax.Array) else np
  grown = xp.minimum(ramp.initial + ramp.per_step * (step - ramp.start_step), ramp.maximum)
  value = xp.where(step > ramp.start_step, grown, ramp.initial)
  return value if isinstance(step, jax.Array) else float(value)


def loss_weights(config: Config, step: int | Array) -> LossWeights:
  """Every loss weight of one step.

  Args:
    config: `weights`, `ramps` and `teaching` are read.
    step: iterations done before this one; i32[] (traced or not) or int.

  Returns:
    LossWeights; numbers are f32[] for an array step and floats for an int.
  """
  before = {name: _ramp_after(ramp, step - 1) for name, ramp in config.ramps.by_name().items()}
  after = {name: _ramp_after(ramp, step) for name, ramp in config.ramps.by_name().items()}
  # 0 or 1: a weight that starts to grow in this step does not count yet.
  counts = {name: (weight > 0) * 1.0 for name, weight in before.items()}
  effective = {name: counts[name] * after[name] for name in after}
  terms: dict[str, Number] = {name: getattr(config.weights, name) for name in CONSTANT_WEIGHTS}
  terms |= {name: effective[name] for name in ('structure_code', 'appearance_code', 'cycle')}
  # The fine head's share of identification uses the teaching weight before the increment: release fact 8.
  fine_on_real = config.teaching.fine_grained * config.teaching.fine_on_real
  terms['fine_identity'] = terms['identity'] * before['teaching'] * fine_on_real
  terms['primary_teaching'] = effective['teaching'] * config.teaching.primary
  terms['fine_teaching'] = effective['teaching'] * config.teaching.fine_grained
  return LossWeights(terms, before, after)


def active_terms(config: Config, step: int) -> ActiveTerms:
  """Which ramped terms count in a step: those whose weight before the step's increment is above 0."""
  positive = {name: bool(_ramp_after(ramp, step - 1) > 0) for name, ramp in config.ramps.by_name().items()}
  return ActiveTerms(
    codes=positive['structure_code'] or positive['appearance_code'],
    cycle=positive['cycle'],
    teaching=positive['teaching'],
  )


def phase_boundaries(config: Config) -> list[int]:
  """The steps within the run, in order, whose active terms differ from the step before; each costs a compilation."""
  # A ramp's first increment is at start_step + 1, and its weight before a step is above 0 one step later.
  candidates = sorted({ramp.start_step + 2 for ramp in config.ramps.by_name().values()})
  return [
    step
    for step in candidates
    if 0 < step < config.num_steps and active_terms(config, step) != active_terms(config, step - 1)
  ]


def learning_rates(config: Config, step: int | Array) -> dict[str, Number]:
  """The optimisers' rates in one step.

  They drop at `decay_steps`, 1.5 and 1.75 times it, each one step early as in the release, which advances its scheduler
  first (fact 2). Milestones that coincide multiply.

  Args:
    config: `optimizer` is read.
    step: iterations done before this one; i32[] (traced or not) or int.

  Returns:
    Rates of 'generator', 'discriminator' and 'reid' (the backbone; heads get `head_multiplier` times it).
  """
  optimizer = config.optimizer
  period = optimizer.decay_steps
  milestones = (period, period + period // 2, period + period // 2 + period // 4)
  drops = sum((step + 1 >= milestone) * 1 for milestone in milestones)
  return {
    'generator': optimizer.generator_learning_rate * optimizer.gan_decay**drops,
    'discriminator': optimizer.discriminator_learning_rate * optimizer.gan_decay**drops,
    'reid': optimizer.reid_learning_rate * optimizer.reid_decay**drops,
  }


def teacher_learning_rate(config: Config, steps_per_epoch: int, step: int | Array) -> Number:
  """The rate of the teacher's head in one step: a linear warm-up from a tenth, and one drop to a tenth.

  Args:
    config: `teacher` is read.
    steps_per_epoch: batches in a pass over the training images.
    step: iterations done before this one; i32[] (traced or not) or int.
  """
  teacher = config.teacher
  xp = jnp if isinstance(step, jax.Array) else np
  warmup_steps = max(teacher.warmup_epochs * steps_per_epoch, 1)
  warmth = xp.minimum(0.1 + 0.9 * step / warmup_steps, 1.0) if teacher.warmup_epochs else 1.0
  drops = (step >= teacher.decay_epoch * steps_per_epoch) * 1
  return teacher.learning_rate * warmth * 0.1**drops
