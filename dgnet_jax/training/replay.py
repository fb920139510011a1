"""Repeats the steps that led to a number that is not finite, and finds the first one."""

import collections
from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from dgnet_jax.config.loading import differences
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.interop.pretrained import check_pretrained, load_backbone
from dgnet_jax.sharding import make_mesh
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.inspection import Quantity, inspect_step
from dgnet_jax.training.learning import StepContext
from dgnet_jax.training.loop import fresh_state, phases, saved_state, train_batches
from dgnet_jax.training.loss_monitor import broken_networks, broken_terms
from dgnet_jax.training.non_finite import NonFinite, SavedReport, environment
from dgnet_jax.training.phase_programs import PhasePrograms
from dgnet_jax.training.placement import Placement
from dgnet_jax.training.run_lock import run_lock
from dgnet_jax.training.skipped_updates import NETWORKS, SKIPPED, all_finite
from dgnet_jax.training.step import make_step_context, make_train_step
from dgnet_jax.training.teacher_store import load_teachers
from dgnet_jax.training.training_data import open_training_data
from dgnet_jax.types import Array, Params, Teacher, TrainState
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)

TINY = 1e-30  # instead of 0
STEPS_SHOWN = 5  # before the step that is not finite


@dataclasses.dataclass(frozen=True)
class StepBefore:
  """A step that was finite, or whose update was skipped.

  Attributes:
    step: iterations done before it.
    losses: means over the streams.
    norms: L2 norm of the parameters of each network after it.
  """

  step: int
  losses: Mapping[str, float]
  norms: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Replay:
  """What a replay found.

  Attributes:
    start: iterations done where it began.
    steps: the last steps before the bad one, at most `STEPS_SHOWN`.
    found: the first step that is not finite, as the training step computed it; None if all were finite.
    quantities: what that step computes, from `inspect_step`; empty if all were finite.
    changes: what differs from the recorded run, and can change results.
  """

  start: int
  steps: Sequence[StepBefore]
  found: NonFinite | None
  quantities: Sequence[Quantity]
  changes: Sequence[str]


def replay(report: SavedReport, workdir: pathlib.Path) -> Replay:
  """Repeats the steps from the last checkpoint before a recorded step up to it, and checks each of them.

  The steps run with the program of training, so that they have the same numbers. Only the step that is not finite runs
  a second time, from the same state, with a program that also returns the gradients. One more copy of the state is kept
  in memory.

  Args:
    report: on the step.
    workdir: of the run; no checkpoint and no log is written there.

  Raises:
    UserError: a job runs in the folder, the data have changed, or the teacher or the checkpoint is missing.
  """
  last = report.found.step
  config = dataclasses.replace(report.config, num_steps=last + 1)
  check_pretrained(config, workdir)
  with run_lock(workdir):
    index = open_training_data(config, workdir)
    mesh, context = make_mesh(model_devices=config.model_devices), make_step_context(config, index.num_identities)
    placement = Placement(mesh, index.num_identities)
    teachers = placement.put(load_teachers(config, index, workdir))
    state, changes = _restored(context, placement, report, teachers[0], workdir)
    start = int(state.step)
    logger.info(f'repeating steps {start} to {last}')
    source = make_source(index.train, config)
    with (
      contextlib.closing(PhasePrograms(make_train_step(context, mesh), phases(config))) as programs,
      contextlib.closing(device_batches(train_batches(config, index, source, start), mesh)) as batches,
    ):
      steps: collections.deque[StepBefore] = collections.deque(maxlen=STEPS_SHOWN)
      progress = Progress(last + 1, start)
      for step in range(start, last + 1):
        pixels, before = next(batches), _copy(state)
        state, metrics = programs.step(step, state, teachers, pixels)
        metrics, (finite, norms) = jax.device_get((metrics, _health(state)))
        found = _found(step, metrics, finite, report.found.checkpoint)
        if found and (step == last or not metrics.get(SKIPPED)):
          state = before  # frees the one after
          whole = placement.whole((before, teachers))  # one step, with programs that do not split the classifiers
          quantities = inspect_step(context, *whole, pixels, phases(config).active(step))
          return Replay(start, tuple(steps), found, quantities, changes)
        if found:
          logger.info(f'step {step}: {", ".join([*found.terms, *found.networks])} not finite; its update is skipped')
        steps.append(_step_before(step, metrics, norms))
        if (step + 1) % config.log.progress_every_steps == 0:
          logger.info(progress.line(step + 1))
  return Replay(start, tuple(steps), None, (), changes)


def _restored(
  context: StepContext, placement: Placement, report: SavedReport, teacher: Teacher, workdir: pathlib.Path
) -> tuple[TrainState, list[str]]:
  """Returns the state to repeat the steps from, and what differs from the recorded run.

  That is the state of the newest checkpoint up to the recorded one, or that at the start of the run.
  """
  now, then = environment(), report.environment
  changes = [f'{name}: {then.get(name, "?")} -> {value}' for name, value in now.items() if then.get(name) != value]
  with contextlib.closing(Checkpoints(workdir / 'checkpoints')) as checkpoints:
    wanted = report.found.checkpoint
    usable = [] if wanted is None else [step for step in checkpoints.steps() if step <= wanted]
    if not usable:
      if wanted is not None:
        logger.warning(f'{checkpoints.folder}: the checkpoint of step {wanted} is gone; starting from step 0')
      return fresh_state(context, placement, load_backbone(context.config, 'reid', teacher=teacher)), changes
    if usable[-1] != wanted:
      logger.warning(f'{checkpoints.folder}: the checkpoint of step {wanted} is gone; using that of step {usable[-1]}')
    for change in differences(checkpoints.saved_config(usable[-1]), report.config):
      logger.info(f'config differs from that of the checkpoint, as when the run was resumed with another: {change}')
    return saved_state(context, checkpoints, placement, usable[-1]), changes


@jax.jit
def _copy(state: TrainState) -> TrainState:
  """Copies a state that is about to be donated."""
  copy: TrainState = jax.tree.map(jnp.copy, state)
  return copy


@jax.jit
def _health(state: TrainState) -> tuple[dict[str, Array], dict[str, Array]]:
  """Returns whether each network's state is finite, and the L2 norm of its parameters."""
  networks = {name: getattr(state, name) for name in NETWORKS}
  norms = {name: _norm(network.params) for name, network in networks.items()}
  return {name: all_finite(network) for name, network in networks.items()}, norms


def _norm(params: Params) -> Array:
  """Returns the L2 norm; scaled, because the squares of large finite numbers are infinite."""
  leaves = jax.tree.leaves(params)
  largest = jnp.maximum(jnp.stack([jnp.abs(x).max() for x in leaves]).max(), TINY)
  return largest * jnp.sqrt(sum(jnp.square(x / largest).sum() for x in leaves))


def _found(
  step: int, metrics: Mapping[str, Any], finite: Mapping[str, Any], checkpoint: int | None
) -> NonFinite | None:
  """Returns what is not finite in a step, or None.

  Args:
    step: iterations done before it.
    metrics: on the host.
    finite: by network, whether its state after the step is.
    checkpoint: goes into the result.
  """
  terms = broken_terms(metrics)
  networks = broken_networks(metrics) or [name for name in NETWORKS if not finite[name]]
  return NonFinite(step, tuple(terms), tuple(networks), step + 1, checkpoint) if terms or networks else None


def _step_before(step: int, metrics: Mapping[str, Any], norms: Mapping[str, Any]) -> StepBefore:
  losses = {name: float(value.mean()) for name, value in metrics.items() if name.split('/')[0] != SKIPPED}
  return StepBefore(step, losses, {name: float(norm) for name, norm in norms.items()})
