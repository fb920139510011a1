"""Trained teachers on disk: their description, and reading them back."""

from collections.abc import Sequence
import contextlib
import os
import pathlib
from typing import Any

import jax

from dgnet_jax.config.network_schema import TeacherConfig
from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex, assign_numbers
from dgnet_jax.errors import UserError
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import make_mesh
from dgnet_jax.storage.local_copies import fetched
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.data_record import (
  TrainingData,
  accept,
  describe_training_data,
  identity_changes,
  other_people,
  read_record,
  saved_steps,
  write_record,
)
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.placement import Placement
from dgnet_jax.training.teacher_step import TeacherState, create_teacher_state
from dgnet_jax.types import Teacher
from dgnet_jax.utils.atomic_files import write_json
from dgnet_jax.utils.bounded_files import read_json

DESCRIPTION_FILE = 'teacher.json'
# What an earlier version, which had no choice, did not write.
FORMER_PARTS = {'backbone': 'resnet', 'neck': 'release'}
Description = dict[str, Any]


def describe_teacher(config: Config, num_identities: int, identities: Sequence[str] | None) -> Description:
  """Describes the identities and sizes that a run and its teacher must share.

  Args:
    config: the run's config.
    num_identities: number of the teacher's classes.
    identities: name of the identity of each class; None if only their number is known.
  """
  network = make_teacher_network(config, num_identities)
  teacher = config.teacher
  return {
    'num_identities': num_identities,
    'identities': None if identities is None else list(identities),
    'backbone': teacher.backbone,
    'stage_sizes': list(teacher.stage_sizes),
    'width': teacher.width,
    'last_stride': teacher.last_stride,
    'pool': teacher.pool,
    'neck': teacher.neck,
    'head_width': teacher.head_width,
    'input_size_hw': [network.reid_scale * size for size in network.image_size_hw],
  }


def write_description(
  description: Description, num_steps: int, folder: pathlib.Path, data: TrainingData | None = None
) -> None:
  """Writes to a teacher's folder what it was trained on and for how many steps.

  Args:
    description: from `describe_teacher`.
    num_steps: number of steps after which the teacher is trained.
    folder: the teacher's folder.
    data: its training data, if they are known.
  """
  if data is not None:
    write_record(data, folder)
  write_json(folder / DESCRIPTION_FILE, description | {'num_steps': num_steps})


def read_description(folder: pathlib.Path) -> Description | None:
  """Reads the description in a teacher's folder, with `num_steps`; None if there is none.

  Raises:
    UserError: the file is damaged.
  """
  path = folder / DESCRIPTION_FILE
  try:
    description = read_json(path)
    if not isinstance(description, dict) or type(description.get('num_steps')) is not int:
      raise ValueError('it has no num_steps')
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise UserError(f'{path} is damaged ({error}); remove {folder} to train a new teacher') from error
  return description


def check_teacher(saved: Description, config: Config, data: TrainingData | int, folder: pathlib.Path) -> None:
  """Compares a teacher with the run that uses it.

  Args:
    saved: the teacher's description.
    config: the run's config.
    data: the run's training data; only the number of identities to apply the teacher to other data.
    folder: the teacher's folder.

  Raises:
    UserError: sizes or numbers of identities differ; names every difference. Or it knows other people, and
      `data.accept_changes` does not accept that; names them.
  """
  count = data if isinstance(data, int) else len(data.identities)
  saved = FORMER_PARTS | saved
  differences = [
    f'{name} is {saved.get(name)} in the teacher and {value} in this run'
    for name, value in describe_teacher(config, count, None).items()
    if name != 'identities' and saved.get(name) != value
  ]
  if differences:
    raise UserError(
      f'the teacher in {folder} does not fit: {"; ".join(differences)}. Set the data and the teacher.* fields as they '
      'were when it was trained, or use another folder (teacher.checkpoint, or another workdir) for a new teacher.'
    )
  if isinstance(data, TrainingData):
    others = _other_identities(saved, data, folder)
    if others:
      found = f'the teacher in {folder} was trained on other identities, although the number is the same: {others}.'
      accept(found, data, config.data, 'Use another folder (teacher.checkpoint, or another workdir) for a new teacher')


def _other_identities(saved: Description, data: TrainingData, folder: pathlib.Path) -> str:
  """Says how the people that a teacher knows differ from those in `data`; '' if they do not, as far as is known."""
  known = saved.get('identities')
  if not isinstance(known, list) or len(known) != len(data.identities):
    return ''  # imported from the release, which does not store them
  if not all(isinstance(name, str) for name in known):  # an earlier version stored the numbers
    numbers = sorted(assign_numbers([data.identities]).values())
    return '' if known == numbers else 'their numbers differ'
  images = read_record(folder)
  return '; '.join(identity_changes(known, data.identities)) or (other_people(images, data) if images else '')


def is_trained(folder: pathlib.Path) -> bool:
  """Returns True if the folder holds a fully trained teacher; reads no arrays."""
  description = read_description(folder)
  if description is None:
    return False
  with contextlib.closing(Checkpoints(folder / 'checkpoints')) as checkpoints:
    return bool(checkpoints.latest_step() == description['num_steps'])


def load_teacher(config: Config, data: DatasetIndex | TrainingData | int, folder: str | pathlib.Path) -> Teacher:
  """Reads a trained teacher, checked against the run.

  Args:
    config: the run's config; its teacher.* sizes must be those of the file.
    data: the data set that it must have been trained on, or only the number of identities (to apply it to other data).
    folder: `<workdir>/teacher` of the run that trained it.

  Raises:
    UserError: the teacher is missing, not fully trained or damaged, or it does not fit; names the differences.
  """
  folder = pathlib.Path(folder)
  known = describe_training_data(data, config.data) if isinstance(data, DatasetIndex) else data
  check_teacher(_existing_description(folder), config, known, folder)
  return read_teacher(config, known if isinstance(known, int) else len(known.identities), folder)


def read_teacher(config: Config, num_identities: int, folder: pathlib.Path) -> Teacher:
  """Reads a trained teacher without comparing descriptions.

  Raises:
    UserError: the teacher is missing, not fully trained or damaged, or its sizes differ.
  """
  num_steps = _existing_description(folder)['num_steps']
  with contextlib.closing(Checkpoints(folder / 'checkpoints', config=config)) as checkpoints:
    step = checkpoints.latest_step()
    if step != num_steps:
      raise UserError(f'the teacher in {folder} is at step {step or 0} of {num_steps}; finish its training first')
    network = state_template(config, Placement(make_mesh(), num_identities)).network
    wanted = {'params': network.params, 'batch_stats': network.batch_stats}
    return Teacher(**checkpoints.restore_part({'network': wanted}, step)['network'])


def teacher_folders(teacher: TeacherConfig, workdir: str | pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Returns the folders in `teacher.checkpoint`, or that in `workdir` if the field is empty."""
  names = [teacher.checkpoint] if os.path.isdir(teacher.checkpoint) else teacher.checkpoint.split(',')
  folders = [fetched(name.strip()) for name in names if name.strip()]
  return tuple(folders) or (pathlib.Path(workdir) / 'teacher',)


def without_teacher(teacher: TeacherConfig, workdir: str | pathlib.Path) -> str:
  """Says that the folder of a run's first teacher has none, as after copying only a part of the run; '' if it has."""
  folder = teacher_folders(teacher, workdir)[0]
  if (folder / DESCRIPTION_FILE).is_file() and saved_steps(folder / 'checkpoints'):
    return ''
  return f'no teacher in {folder}'


def load_teachers(
  config: Config, data: DatasetIndex | TrainingData | int, workdir: str | pathlib.Path
) -> tuple[Teacher, ...]:
  """Reads the teachers in `teacher_folders`; arguments and errors as for `load_teacher`."""
  return tuple(load_teacher(config, data, folder) for folder in teacher_folders(config.teacher, workdir))


def check_named_teachers(config: Config) -> None:
  """Checks, before any work, that `teacher.checkpoint` names trained teachers, if it names any; reads no arrays.

  Raises:
    UserError: a folder has no teacher.
  """
  for folder in teacher_folders(config.teacher, '') if config.teacher.checkpoint else ():
    _existing_description(folder)


def state_template(config: Config, placement: Placement) -> TeacherState:
  """Returns a template of a TeacherState to restore a checkpoint into: `Placement.template`."""
  network = make_teacher_network(config, placement.num_identities)
  # The steps per epoch affect no shape.
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch=1)
  shapes: TeacherState = jax.eval_shape(lambda: create_teacher_state(network, optimizer, config.seed))
  return placement.template(shapes)


def _existing_description(folder: pathlib.Path) -> Description:
  description = read_description(folder)
  if description is None:
    raise UserError(f'no teacher in {folder}: {DESCRIPTION_FILE} is missing. Train one first (`dgnet teacher`).')
  return description
