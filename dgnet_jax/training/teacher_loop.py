"""Trains the teacher: once, before DG-Net, on the same identities."""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import functools
import logging
import pathlib
from typing import Any

import jax
import optax

from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import split_to_rank_in_training
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.data.sources.base import Source
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.interop.pretrained import load_backbone
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import make_mesh
from dgnet_jax.training.agreement import from_first_process, in_all_processes
from dgnet_jax.training.batch_sizes import check_batch_sizes, check_identities
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.data_record import TrainingData, describe_training_data
from dgnet_jax.training.job import Job, Report, run_job
from dgnet_jax.training.metric_sinks import configured_sinks
from dgnet_jax.training.metrics import MetricWriter
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.placement import Placement
from dgnet_jax.training.run_lock import run_lock
from dgnet_jax.training.schedules import teacher_schedule
from dgnet_jax.training.teacher_step import Metrics, TeacherState, TeacherStep, create_teacher_state, make_teacher_step
from dgnet_jax.training.teacher_store import (
  Description,
  check_teacher,
  describe_teacher,
  load_teachers,
  read_description,
  state_template,
  write_description,
)
from dgnet_jax.training.validation import MakeMeasure, Validation, last_measured, make_validation
from dgnet_jax.types import Teacher
from dgnet_jax.utils.paths import local_path

logger = logging.getLogger(__name__)


def train_teacher(
  config: Config,
  index: DatasetIndex,
  workdir: str | pathlib.Path,
  *,
  source: Source | None = None,
  make_measure: MakeMeasure | None = None,
) -> tuple[Teacher, ...]:
  """Trains the teacher, resuming where an earlier call stopped, or reads the teachers that the config names.

  Args:
    config: the run's config.
    index: index of the data set; its training identities are the classes.
    workdir: gets `teacher/`, unless `teacher.checkpoint` names trained teachers.
    source: source of the training images, to share with another job; by default a new one, if it is needed.
    make_measure: ranks during training, as `evaluation.every_steps` says; without it the teacher is not ranked.

  Raises:
    UserError: an existing teacher does not fit, the batch size does not fit data or devices, a loss is not finite, or
      another process trains in `workdir`.
    Interrupted: SIGINT or SIGTERM was received; the state is saved, and the same command resumes from it.
  """
  data = describe_training_data(index, config.data)
  if config.teacher.checkpoint:
    logger.info(f'teacher: {config.teacher.checkpoint}')
    return load_teachers(config, data, workdir)
  workdir = local_path(workdir)
  with run_lock(workdir):
    return _trained_in(config, index, data, workdir / 'teacher', source, make_measure)


def _trained_in(
  config: Config,
  index: DatasetIndex,
  data: TrainingData,
  folder: pathlib.Path,
  source: Source | None,
  make_measure: MakeMeasure | None,
) -> tuple[Teacher, ...]:
  """Returns the teacher in `folder`, trained to the end."""
  saved = from_first_process(lambda: read_description(folder))
  if saved is not None:
    check_teacher(saved, config, data, folder)
    if config.data.accept_changes == data.fingerprint and jax.process_index() == 0:  # accepted once and for all
      description = describe_teacher(config, index.num_identities, data.identities)
      write_description(description, saved['num_steps'], folder, data)
  placement = Placement(make_mesh(model_devices=config.model_devices), index.num_identities)
  with Checkpoints(folder / 'checkpoints', config.log.keep_checkpoints, config) as checkpoints:
    state = None
    if checkpoints.latest_step() is not None:
      state = checkpoints.restore(state_template(config, placement))
    is_finished = saved is not None and state is not None and int(state.step) == saved['num_steps']
    if saved and state and is_finished and not (make_measure and _lacks_ranking(config, index, saved, folder)):
      logger.info(f'teacher: {folder}, trained for {saved["num_steps"]} steps')
      if _is_shorter(config, index, saved):
        logger.warning(
          f'teacher.num_epochs={config.teacher.num_epochs} asks for more steps, but a finished teacher stays as it is; '
          f'to train a longer one, use another --workdir or remove {folder}'
        )
    else:
      sizes = {'teacher.batch_size': config.teacher.batch_size}
      check_batch_sizes(sizes, num_images=len(index.train), num_devices=jax.device_count())
      check_identities(config, num_identities=index.num_identities, fields=sizes)
      network = make_teacher_network(config, placement.identities_per_device)
      validation: Validation[TeacherState] | None = make_validation(config, index, make_measure, network)
      source = source or make_source(index.train, config)
      state = _train(config, data, source, checkpoints, state, placement, validation)
  return (Teacher(state.network.params, state.network.batch_stats),)


def _is_shorter(config: Config, index: DatasetIndex, saved: Description) -> bool:
  """Returns True if a finished teacher has done fewer steps than configured; that of the release counts its own."""
  configured: int = config.teacher.num_epochs * (len(index.train) // config.teacher.batch_size)
  return saved.get('identities') is not None and int(saved['num_steps']) < configured


def _lacks_ranking(config: Config, index: DatasetIndex, saved: Description, folder: pathlib.Path) -> bool:
  """Returns True if a teacher was trained to the end, but stopped before its last state was ranked."""
  if not config.evaluation.every_steps or saved.get('identities') is None or _is_shorter(config, index, saved):
    return False
  split, _ = split_to_rank_in_training(index)
  num_steps = int(saved['num_steps'])
  return last_measured(folder, num_steps, split) < num_steps


def _train(
  config: Config,
  data: TrainingData,
  source: Source,
  checkpoints: Checkpoints,
  state: TeacherState | None,
  placement: Placement,
  validation: Validation[TeacherState] | None,
) -> TeacherState:
  """Trains to the end, from `state` or from scratch; both states have their classifier whole."""
  mesh, folder = placement.mesh, checkpoints.folder.parent
  steps_per_epoch, num_identities = source.single_sampler.steps_per_epoch, len(data.identities)
  network = make_teacher_network(config, num_identities)
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch)
  if state is None:
    backbone = in_all_processes(lambda: load_backbone(config, 'teacher'))
    state = create_teacher_state(network, optimizer, config.seed, backbone)
  state = placement.put(state)
  start, configured = int(state.step), config.teacher.num_epochs * steps_per_epoch
  num_steps = max(configured, start)
  if start > configured:
    logger.warning(
      f'teacher.num_epochs={config.teacher.num_epochs} are {configured} steps, but the teacher has done {start} steps '
      'already: it stays as it is'
    )
  if jax.process_index() == 0:
    write_description(describe_teacher(config, num_identities, data.identities), num_steps, folder, data)
  count = sum(x.size for x in jax.tree.leaves(state.network.params))
  logger.info(
    f'teacher: {count / 1e6:.2f} M parameters, {config.teacher.num_epochs} epochs of {steps_per_epoch} steps, '
    f'from step {start}, in {folder}'
  )
  step_fn = make_teacher_step(network, optimizer, config, mesh)
  if validation:
    validation.keeps_best = False  # a run uses the last
    validation.resume(folder, start)
  with (
    MetricWriter(folder, start, functools.partial(configured_sinks, config)) as writer,
    contextlib.closing(device_batches(source.single_batches(start), mesh)) as batches,
  ):
    job = _job(step_fn, batches, num_steps, teacher_schedule(config.teacher, steps_per_epoch))
    job = dataclasses.replace(job, whole=placement.whole, validation=validation)
    return placement.whole(run_job(job, state, log=config.log, checkpoints=checkpoints, writer=writer))


def _job(
  step_fn: TeacherStep, batches: Iterator[tuple[Any, Any]], num_steps: int, schedule: optax.Schedule
) -> Job[TeacherState]:
  def take_step(state: TeacherState, _: int) -> tuple[TeacherState, Metrics]:
    return step_fn(state, *next(batches))

  def report(done: int, means: Mapping[str, float]) -> Report:
    rate = float(schedule(done - 1))
    summary = f'loss {means["loss"]:.3f} accuracy {means["accuracy"]:.3f} rate {rate:.4f}'
    return Report(summary, {**means, 'rate': rate})

  return Job(
    name='teacher',
    num_steps=num_steps,
    advice='Lower teacher.learning_rate',
    take_step=take_step,
    report=report,
  )
