"""The main job: training DG-Net, after its teacher."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import functools
import logging
import pathlib
import shlex
from typing import Any

import jax

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.data.sources.base import Source
from dgnet_jax.data.synthetic.ground_truth import GroundTruthRenderer, with_cross_ground_truth
from dgnet_jax.errors import UserError
from dgnet_jax.interop.pretrained import check_pretrained, load_backbone
from dgnet_jax.training.agreement import in_all_processes
from dgnet_jax.training.alarms import Alarms
from dgnet_jax.training.best_step import MEASURE
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.data_record import saved_steps
from dgnet_jax.training.image_grid import ImageGrid
from dgnet_jax.training.job import Job, Report, run_job
from dgnet_jax.training.learning import StepContext
from dgnet_jax.training.metric_sinks import configured_sinks
from dgnet_jax.training.metrics import MetricWriter
from dgnet_jax.training.non_finite import NonFinite, write_report
from dgnet_jax.training.phase_programs import PhasePrograms, Phases
from dgnet_jax.training.placement import Placement
from dgnet_jax.training.run_lock import run_lock
from dgnet_jax.training.schedules import active_terms, learning_rates, loss_weights, phase_boundaries
from dgnet_jax.training.setup import set_up
from dgnet_jax.training.skipped_updates import SKIPPED, num_skipped
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import Metrics, make_train_step
from dgnet_jax.training.teacher_loop import train_teacher
from dgnet_jax.training.teacher_store import check_named_teachers, without_teacher
from dgnet_jax.training.validation import (
  MakeMeasure,
  Validation,
  check_measure,
  make_validation,
  resumed_best,
  warn_of_other_measure,
)
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher, TrainState
from dgnet_jax.utils.paths import local_path

logger = logging.getLogger(__name__)

# Losses on the progress line, by their label there.
PROGRESS_LOSSES = {
  'total': 'total',
  'D': 'discriminator',
  'adv': 'adversarial',
  'self': 'self_reconstruction',
  'pos': 'positive_reconstruction',
  'cyc': 'cycle',
  'match': 'matching',
  'mask': 'mask_area',
  'id': 'identity',
  'cross id': 'cross_identity',
  'teach': 'primary_teaching',
}


def train(config: Config, workdir: str | pathlib.Path, *, make_measure: MakeMeasure | None = None) -> TrainState:
  """Trains DG-Net, after its teacher; resumes where an earlier run in `workdir` stopped.

  Args:
    config: the run's config.
    workdir: gets `checkpoints/`, `metrics.jsonl`, TensorBoard files, `images/` and, by default, `teacher/`.
    make_measure: ranks during training, also the teacher's. Needed for `evaluation.every_steps`.

  Returns:
    The state after the last step.

  Raises:
    UserError: a batch size does not fit data or devices, a loss is not finite (`non_finite/` then has a report),
      pretrained weights are missing or do not fit, the run in `workdir` has another value of `joint`, another design of
      the generator or other training data, or is finished and lacks its teacher, or another process trains there.
    Interrupted: SIGINT or SIGTERM was received; the state is saved, and the same command resumes from it.
  """
  workdir = local_path(workdir)
  check_measure(config, make_measure)

  def check() -> None:
    check_pretrained(config, workdir)
    _check_teacher_was_copied(config, workdir)
    check_named_teachers(config)

  in_all_processes(check)
  with run_lock(workdir):
    return _train(config, workdir, make_measure)


def _train(config: Config, workdir: pathlib.Path, make_measure: MakeMeasure | None) -> TrainState:
  setup = set_up(config, workdir)
  index, source, mesh, context = setup.index, setup.source, setup.mesh, setup.context
  placement = setup.placement
  networks = context.networks.with_identities(placement.identities_per_device)
  validation: Validation[TrainState] | None = make_validation(config, index, make_measure, networks)
  teachers = placement.put(train_teacher(config, index, workdir, source=source, make_measure=make_measure))
  with (
    contextlib.closing(PhasePrograms(make_train_step(context, mesh), phases(config))) as programs,
    Checkpoints(workdir / 'checkpoints', config.log.keep_checkpoints, config) as checkpoints,
  ):
    state = _initial_state(context, checkpoints, teachers[0], placement)
    start = int(state.step)
    best = resumed_best(workdir, start, validation.split if validation else '')
    checkpoints.keep_best(best[0] if best else None)
    if validation:
      validation.resume(workdir, start)
    if validation and best:
      warn_of_other_measure(checkpoints.saved_config(), config)
    _announce(context, index, state)
    if start > config.num_steps:
      logger.warning(
        f'num_steps is {config.num_steps}, but the run has done {start} steps already: nothing is trained, and results '
        f'are those of step {start}. For a shorter run use another --workdir'
      )
    with (
      MetricWriter(workdir, start, functools.partial(configured_sinks, config)) as writer,
      contextlib.closing(device_batches(train_batches(config, index, source, start), mesh)) as batches,
    ):
      job = Job(
        name='',
        num_steps=config.num_steps,
        advice='Lower the learning rates (optimizer.*), set compute_dtype to float32, or set optimizer.skip_non_finite',
        take_step=_take_step(programs, teachers, batches),
        report=_report(config, num_skipped(state)),
        after_step=_draw_images(context, index, source, writer, placement)
        if config.joint and jax.process_index() == 0
        else None,
        max_skipped=config.optimizer.skip_non_finite,
        skipped=num_skipped(state),
        reporter=_reporter(config, workdir),
        whole=placement.whole,
        validation=validation,
      )
      state = placement.whole(run_job(job, state, log=config.log, checkpoints=checkpoints, writer=writer))
    logger.info(f'{int(state.step)} steps done; state in {checkpoints.folder}')
    if validation and validation.best:
      logger.info(f'best step {validation.best[0]}, {validation.split} {MEASURE} {validation.best[1]:.2%}')
  return state


def _check_teacher_was_copied(config: Config, workdir: pathlib.Path) -> None:
  """Warns if a run to resume lacks its teacher; raises UserError if it would be trained for a run that is finished."""
  missing = '' if config.teacher.checkpoint else without_teacher(config.teacher, workdir)
  steps = saved_steps(workdir / 'checkpoints')
  if not missing or not steps:
    return
  if max(steps) >= config.num_steps:
    raise UserError(
      f'{missing}, and the run has done its {max(steps)} steps: there is nothing to train it for. `dgnet evaluate` '
      'evaluates the run without it; `dgnet teacher` trains a new one'
    )
  logger.warning(
    f'{missing}, although the run is at step {max(steps)}: a new one is trained; copy the old one to use it'
  )


def fresh_state(context: StepContext, placement: Placement, backbone: Mapping[str, Any] | None = None) -> TrainState:
  """Returns the state at step 0 on all devices; `backbone` as in `create_train_state`."""
  return placement.put(create_train_state(context.networks, context.optimizers, context.config.seed, backbone))


def saved_state(
  context: StepContext, checkpoints: Checkpoints, placement: Placement, step: int | None = None
) -> TrainState:
  """Returns the state of the newest intact checkpoint, or that of `step`, on all devices."""
  shapes: TrainState = jax.eval_shape(
    lambda: create_train_state(context.networks, context.optimizers, context.config.seed)
  )
  return placement.put(checkpoints.restore(placement.template(shapes), step))


def _initial_state(
  context: StepContext, checkpoints: Checkpoints, teacher: Teacher, placement: Placement
) -> TrainState:
  """Returns the state to train from: the latest checkpoint, or a fresh state."""
  config = context.config
  if checkpoints.latest_step() is None:
    backbone = in_all_processes(lambda: load_backbone(config, 'reid', teacher=teacher))
    return fresh_state(context, placement, backbone)
  joint = checkpoints.saved_config().get('joint', True)
  if joint != config.joint:
    raise UserError(
      f'{checkpoints.folder} belongs to a run with joint={joint}, which cannot be resumed with joint={config.joint}; '
      'use another work folder'
    )
  checkpoints.require_design(config)
  state = saved_state(context, checkpoints, placement)
  logger.info(f'resuming from step {int(state.step)} in {checkpoints.folder}')
  return state


def _announce(context: StepContext, index: DatasetIndex, state: TrainState) -> None:
  """Logs the sizes of the data set and of the networks, and settings that disable loss terms."""
  config, networks = context.config, context.networks
  counts = {
    name: sum(x.size for x in jax.tree.leaves(getattr(state, name).params))
    for name in ('generator', 'discriminator', 'reid')
  }
  sizes = ', '.join(f'{name} {count / 1e6:.2f} M' for name, count in counts.items())
  height, width = networks.image_size_hw
  logger.info(
    f'{index.name}: {len(index.train)} training images of {index.num_identities} identities, {height}x{width}'
  )
  logger.info(f'parameters: {sizes}; {jax.device_count()} {jax.default_backend()} device(s)')
  if not config.joint:
    and_truth = ' and the ground truth of cross images' if config.teaching.images == 'ground_truth' else ''
    logger.info(f'joint is False: nothing is generated, the re-id network learns from real images{and_truth}')
  elif not config.ramps.teaching.initial:
    logger.info(f'the teaching weight is 0 until step {config.ramps.teaching.start_step + 2}')


def train_batches(config: Config, index: DatasetIndex, source: Source, start: int) -> Iterator[PixelBatch]:
  """Yields the batches of the steps from `start` on."""
  batches = source.batches(start)
  if config.teaching.images != 'ground_truth':
    return batches

  def is_needed(step: int) -> bool:
    return active_terms(config.ramps, step, config.optimizer.generator_steps).teaching

  renderer = GroundTruthRenderer(config.data, index.root, index.train.paths)
  return with_cross_ground_truth(batches, source.sampler, renderer, start_step=start, is_needed=is_needed)


def _take_step(
  programs: PhasePrograms, teachers: tuple[Teacher, ...], batches: Iterator[PixelBatch]
) -> Callable[[TrainState, int], tuple[TrainState, Metrics]]:
  """Returns a function that runs one step on the next batch."""
  return lambda state, step: programs.step(step, state, teachers, next(batches))


def phases(config: Config) -> Phases:
  """Returns the phases of a run."""
  generator_steps = config.optimizer.generator_steps

  def batch(pixels: PixelBatch, active: ActiveTerms) -> PixelBatch:
    needs_ground_truth = active.teaching and config.teaching.images == 'ground_truth'
    return dataclasses.replace(pixels, cross_ground_truth=pixels.image if needs_ground_truth else None)

  return Phases(
    starts=phase_boundaries(config.ramps, config.num_steps, generator_steps),
    active=lambda step: active_terms(config.ramps, step, generator_steps),
    name=lambda active: _phase_name(active, config.joint),
    batch=batch,
  )


def _phase_name(active: ActiveTerms, joint: bool) -> str:
  if not joint:
    return 'both heads' if active.teaching else 'the primary head'
  if not active.generator:
    return f'the re-id network alone{", with images of the trained generator" if active.teaching else ""}'
  ramped = [name for name in ('codes', 'cycle', 'teaching') if getattr(active, name)]
  return f'ramped terms {", ".join(ramped)}' if ramped else 'the warm-up (no ramped terms)'


def _reporter(config: Config, workdir: pathlib.Path) -> Callable[[NonFinite], str]:
  """Returns a function that writes the report on a step that is not finite, and says what to do with it."""

  def report(found: NonFinite) -> str:
    command = f'`dgnet replay --workdir={shlex.quote(str(workdir))} --step={found.step}`'
    try:
      if jax.process_index() == 0:
        write_report(found, config, workdir)
    except OSError as error:  # what the user has to know is the step
      return f'There is no report for {command}: it cannot be written ({error.strerror})'
    return f'{command} repeats the step, and names the first number that is not finite.'

  return report


def _draw_images(
  context: StepContext, index: DatasetIndex, source: Source, writer: MetricWriter, placement: Placement
) -> Callable[[int, TrainState], None]:
  """Returns a function that writes the image grid at intervals and after the last step."""
  # No image depends on a classifier, so the part that the first device has of a split one will do.
  networks = context.networks.with_identities(placement.identities_per_device)
  config, grid = context.config, ImageGrid(networks, index.train, source.sampler)

  def draw(done: int, state: TrainState) -> None:
    if done % config.log.images_every_steps == 0 or done == config.num_steps:
      writer.write_images(done, {'pairs': grid.draw(state)})

  return draw


def _report(config: Config, skipped: int) -> Callable[[int, Mapping[str, float]], Report]:
  """Returns a function that makes a report of mean losses, and of the weights and learning rates of the last step.

  Args:
    config: of the run.
    skipped: number of updates that were skipped before the first report.
  """
  alarms = Alarms(config.discriminator)

  def report(done: int, means: Mapping[str, float]) -> Report:
    nonlocal skipped
    skipped += int(means.get(SKIPPED, 0))
    losses = {name: value for name, value in means.items() if name != SKIPPED}
    summary = ' '.join(f'{label} {losses[name]:.3f}' for label, name in PROGRESS_LOSSES.items() if name in losses)
    weights = loss_weights(config.weights, config.ramps, config.teaching, done - 1).after
    scalars = {f'loss/{name}': value for name, value in losses.items()}
    scalars |= {f'weight/{name}': float(value) for name, value in weights.items()}
    rates = learning_rates(config, max(0, done - 1 - skipped))  # the optimizers count updates
    if not active_terms(config.ramps, done - 1, config.optimizer.generator_steps).generator:
      rates = {'reid': rates['reid']}
    scalars |= {f'rate/{name}': float(value) for name, value in rates.items()}
    scalars |= {SKIPPED: means[SKIPPED]} if SKIPPED in means else {}
    return Report(summary, scalars, alarms.add(losses) if losses else ())

  return report
