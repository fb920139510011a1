"""The teacher's training loop: before DG-Net, once, on the same identities."""

from collections.abc import Mapping
import contextlib
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.interop.pretrained import load_backbone
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import make_mesh, put_everywhere, replicated
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.metrics import MetricWriter
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.preemption import stop_signals
from dgnet_jax.training.schedules import teacher_schedule
from dgnet_jax.training.teacher_step import Metrics, TeacherState, create_teacher_state, make_teacher_step
from dgnet_jax.types import Teacher
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)


DESCRIPTION_FILE = 'teacher.json'
Description = dict[str, Any]


def describe_teacher(config: Config, num_identities: int, class_of: Mapping[int, int] | None) -> Description:
  """What a teacher must agree in with a run: the people it names, in the order of its classes, and its sizes.

  Args:
    config: validated.
    num_identities: its classes.
    class_of: the class of every identity; None where only their number is known.
  """
  network = make_teacher_network(config, num_identities)
  teacher = config.teacher
  return {
    'num_identities': num_identities,
    'identities': None if class_of is None else sorted(class_of, key=class_of.__getitem__),
    'stage_sizes': list(teacher.stage_sizes),
    'width': teacher.width,
    'last_stride': teacher.last_stride,
    'pool': teacher.pool,
    'head_width': teacher.head_width,
    'input_size_hw': [network.reid_scale * size for size in network.image_size_hw],
  }


def _read_description(folder: pathlib.Path) -> Description | None:
  """The description in a teacher's folder with its `num_steps`; None when there is none."""
  try:
    return json.loads((folder / DESCRIPTION_FILE).read_text())
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise UserError(
      f'{folder / DESCRIPTION_FILE} is damaged ({error}); remove {folder} to train a new teacher'
    ) from error


def _present_description(folder: pathlib.Path) -> Description:
  found = _read_description(folder)
  if found is None:
    raise UserError(f'no teacher in {folder}: {DESCRIPTION_FILE} is missing. --mode=teacher trains one.')
  return found


def _check_description(found: Description, wanted: Description, folder: pathlib.Path) -> None:
  """Raises UserError that names every difference."""
  differences = [
    f'{name} is {found.get(name)} there and {value} here'
    for name, value in wanted.items()
    if name != 'identities' and found.get(name) != value
  ]
  # A teacher that was brought in from elsewhere knows the number of its people only.
  if not differences and wanted['identities'] and found.get('identities') not in (None, wanted['identities']):
    differences = ['it was trained on as many, but other people']
  if differences:
    raise UserError(
      f'the teacher in {folder} does not fit: {"; ".join(differences)}. Set the data or the teacher.* fields as it was '
      'trained, or name another folder (teacher.checkpoint, or another workdir) for a new teacher.'
    )


def load_teacher(config: Config, people: DatasetIndex | int, folder: str | pathlib.Path) -> Teacher:
  """Reads a trained teacher.

  Args:
    config: validated; the sizes of `teacher` must be those of the file.
    people: the data that it must have been trained on, or only how many people (to see it on other data).
    folder: `<workdir>/teacher` of the run that trained it.

  Raises:
    UserError: there is none, it is not trained to the end, it is damaged, or it does not fit; says in what.
  """
  folder = pathlib.Path(folder)
  count, class_of = (people, None) if isinstance(people, int) else (people.num_identities, people.class_of)
  _check_description(_present_description(folder), describe_teacher(config, count, class_of), folder)
  return read_teacher(config, count, folder)


def read_teacher(config: Config, num_identities: int, folder: pathlib.Path) -> Teacher:
  """Reads a trained teacher whoever its people are.

  Raises:
    UserError: there is none, it is not trained to the end, it is damaged, or its sizes differ; says in what.
  """
  found = _present_description(folder)
  with contextlib.closing(Checkpoints(folder / 'checkpoints', config=config)) as checkpoints:
    step = checkpoints.latest_step()
    if step != found['num_steps']:
      raise UserError(
        f'the teacher in {folder} is at step {step or 0} of {found["num_steps"]}. --mode=teacher trains it to the end.'
      )
    network = _template(config, num_identities).network
    names = ('params', 'batch_stats')
    parts = checkpoints.restore_part({'network': {name: getattr(network, name) for name in names}}, step)
    return Teacher(**parts['network'])


def teacher_folders(config: Config, workdir: str | pathlib.Path) -> tuple[pathlib.Path, ...]:
  """The folders that `teacher.checkpoint` names, by default the one in `workdir`."""
  named = [pathlib.Path(folder.strip()) for folder in config.teacher.checkpoint.split(',') if folder.strip()]
  return tuple(named) or (pathlib.Path(workdir) / 'teacher',)


def load_teachers(config: Config, people: DatasetIndex | int, workdir: str | pathlib.Path) -> tuple[Teacher, ...]:
  """The trained teachers of `teacher_folders`; raises as `load_teacher`."""
  return tuple(load_teacher(config, people, folder) for folder in teacher_folders(config, workdir))


def _template(config: Config, num_identities: int) -> TeacherState:
  """The form of a state, to restore into, without its numbers."""
  network = make_teacher_network(config, num_identities)
  # The structure of the state does not depend on the number of steps.
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch=1)
  form = jax.eval_shape(lambda: create_teacher_state(network, optimizer, config.seed))
  everywhere = replicated(make_mesh())
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), form)


def train_teacher(config: Config, index: DatasetIndex, workdir: str | pathlib.Path) -> tuple[Teacher, ...]:
  """Trains (or goes on training) the teacher, or reads those that the config names.

  Args:
    config: validated.
    index: of the data; its people are the classes.
    workdir: gets `teacher/`, unless the config names trained ones (`teacher.checkpoint`).

  Raises:
    UserError: the teacher there does not fit, or a loss is not finite.
    Interrupted: SIGINT or SIGTERM came; the state is saved and the same command goes on from it.
  """
  if config.teacher.checkpoint:
    logger.info(f'teacher: {config.teacher.checkpoint}')
    return load_teachers(config, index, workdir)
  folder = pathlib.Path(workdir) / 'teacher'
  wanted, found = describe_teacher(config, index.num_identities, index.class_of), _read_description(folder)
  if found is not None:
    _check_description(found, wanted, folder)
  with contextlib.closing(Checkpoints(folder / 'checkpoints', config.log.keep_checkpoints, config)) as checkpoints:
    state = None
    if checkpoints.latest_step() is not None:
      state = checkpoints.restore(_template(config, index.num_identities))
    if found is not None and state is not None and int(state.step) == found['num_steps']:
      logger.info(f'teacher: {folder}, trained for {found["num_steps"]} steps')
    else:
      state = _train(config, index, folder, wanted, checkpoints, state)
  return (Teacher(state.network.params, state.network.batch_stats),)


def _train(
  config: Config,
  index: DatasetIndex,
  folder: pathlib.Path,
  description: Description,
  checkpoints: Checkpoints,
  state: TeacherState | None,
) -> TeacherState:
  """Trains to the end, from `state` or from scratch."""
  mesh = make_mesh()
  source = make_source(index.train, config)
  steps_per_epoch = source.single_sampler.steps_per_epoch
  network = make_teacher_network(config, index.num_identities)
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch)
  if state is None:
    backbone = load_backbone(config, 'teacher')
    state = put_everywhere(create_teacher_state(network, optimizer, config.seed, backbone), replicated(mesh))
  start = int(state.step)
  total = max(config.teacher.num_epochs * steps_per_epoch, start)
  if jax.process_index() == 0:
    with atomic_file(folder / DESCRIPTION_FILE) as aside:
      aside.write_text(json.dumps(description | {'num_steps': total}, indent=2) + '\n')
  count = sum(x.size for x in jax.tree.leaves(state.network.params))
  logger.info(
    f'teacher: {count / 1e6:.2f} M parameters, {config.teacher.num_epochs} epochs of {steps_per_epoch} steps, '
    f'from step {start}, in {folder}'
  )
  step_fn = make_teacher_step(network, optimizer, config, mesh)
  with (
    contextlib.closing(MetricWriter(folder, resume_step=start)) as writer,
    contextlib.closing(device_batches(source.single_batches(start), mesh)) as batches,
    stop_signals() as stopped,
  ):
    pending: list[Metrics] = []
    progress, schedule = Progress(total, start), teacher_schedule(config.teacher, steps_per_epoch)
    for done in range(start + 1, total + 1):
      state, metrics = step_fn(state, *next(batches))
      pending.append(metrics)
      stopping = stopped() and done < total
      saving = stopping or done == total or done % config.log.checkpoint_every_steps == 0
      if saving or done % config.log.progress_every_steps == 0:
        means = _mean_metrics(pending, done, folder)
        pending.clear()
        rate = float(schedule(done - 1))
        logger.info(
          'teacher ' + progress.line(done, f'loss {means["loss"]:.3f} accuracy {means["accuracy"]:.3f} rate {rate:.4f}')
        )
        writer.write_scalars(done, means | {'rate': rate})
      if saving:
        checkpoints.save(done, state, wait=stopping or done == total)
      if stopping:
        raise Interrupted(f'teacher stopped at step {done} of {total}; saved in {folder}. The same command goes on.')
  return state


def _mean_metrics(pending: list[Metrics], done: int, folder: pathlib.Path) -> dict[str, float]:
  """Means over the steps that end with `done`.

  Raises:
    UserError: a loss is not finite; names its step.
  """
  fetched = jax.device_get(pending)
  for step, metrics in enumerate(fetched, start=done - len(fetched) + 1):
    if not np.isfinite(metrics['loss']):
      raise UserError(
        f"the teacher's loss is not finite at step {step}; what is saved in {folder} is good. Lower "
        'teacher.learning_rate and run the same command again.'
      )
  return {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
