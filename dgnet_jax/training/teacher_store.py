"""Trained teachers on disk: their description, and reading them back."""

from collections.abc import Mapping
import contextlib
import json
import os
import pathlib
from typing import Any

import jax

from dgnet_jax.config.schema import Config, TeacherConfig
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.errors import UserError
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.teacher_step import TeacherState, create_teacher_state
from dgnet_jax.types import Teacher
from dgnet_jax.utils.atomic_files import write_json
from dgnet_jax.utils.paths import local_path

DESCRIPTION_FILE = 'teacher.json'
Description = dict[str, Any]


def describe_teacher(config: Config, num_identities: int, class_of: Mapping[int, int] | None) -> Description:
  """Describes the identities and sizes that a run and its teacher must share.

  Args:
    config: the run's config.
    num_identities: number of the teacher's classes.
    class_of: class of each identity; None if only their number is known.
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


def write_description(description: Description, num_steps: int, folder: pathlib.Path) -> None:
  """Writes a description, and the number of steps after which the teacher is trained, to a teacher's folder."""
  write_json(folder / DESCRIPTION_FILE, description | {'num_steps': num_steps})


def read_description(folder: pathlib.Path) -> Description | None:
  """Reads the description in a teacher's folder, with `num_steps`; None if there is none.

  Raises:
    UserError: the file is damaged.
  """
  path = folder / DESCRIPTION_FILE
  try:
    description: Description = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(description, dict) or not isinstance(description.get('num_steps'), int):
      raise ValueError('not the description of a teacher')
  except FileNotFoundError:
    return None
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path} is damaged ({error}); remove {folder} to train a new teacher') from error
  return description


def check_description(saved: Description, expected: Description, folder: pathlib.Path) -> None:
  """Compares a teacher's description with that of the run.

  Raises:
    UserError: they differ; names every difference.
  """
  differences = [
    f'{name} is {saved.get(name)} in the teacher and {value} in this run'
    for name, value in expected.items()
    if name != 'identities' and saved.get(name) != value
  ]
  # A teacher imported from the release knows only the number of its identities.
  if not differences and expected['identities'] and saved.get('identities') not in (None, expected['identities']):
    differences = ['it was trained on other identities, although the number is the same']
  if differences:
    raise UserError(
      f'the teacher in {folder} does not fit: {"; ".join(differences)}. Set the data and the teacher.* fields as they '
      'were when it was trained, or use another folder (teacher.checkpoint, or another workdir) for a new teacher.'
    )


def is_trained(folder: pathlib.Path) -> bool:
  """Returns True if the folder holds a fully trained teacher; reads no arrays."""
  description = read_description(folder)
  if description is None:
    return False
  with contextlib.closing(Checkpoints(folder / 'checkpoints')) as checkpoints:
    return bool(checkpoints.latest_step() == description['num_steps'])


def load_teacher(config: Config, data: DatasetIndex | int, folder: str | pathlib.Path) -> Teacher:
  """Reads a trained teacher, checked against the run.

  Args:
    config: the run's config; its teacher.* sizes must be those of the file.
    data: the data set that it must have been trained on, or only the number of identities (to apply it to other data).
    folder: `<workdir>/teacher` of the run that trained it.

  Raises:
    UserError: the teacher is missing, not fully trained or damaged, or it does not fit; names the differences.
  """
  folder = pathlib.Path(folder)
  count, class_of = (data, None) if isinstance(data, int) else (data.num_identities, data.class_of)
  check_description(_existing_description(folder), describe_teacher(config, count, class_of), folder)
  return read_teacher(config, count, folder)


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
    network = state_template(config, num_identities).network
    wanted = {'params': network.params, 'batch_stats': network.batch_stats}
    return Teacher(**checkpoints.restore_part({'network': wanted}, step)['network'])


def teacher_folders(teacher: TeacherConfig, workdir: str | pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Returns the folders in `teacher.checkpoint`, or that in `workdir` if the field is empty."""
  names = [teacher.checkpoint] if os.path.isdir(teacher.checkpoint) else teacher.checkpoint.split(',')
  folders = [local_path(name.strip()) for name in names if name.strip()]
  return tuple(folders) or (pathlib.Path(workdir) / 'teacher',)


def load_teachers(config: Config, data: DatasetIndex | int, workdir: str | pathlib.Path) -> tuple[Teacher, ...]:
  """Reads the teachers in `teacher_folders`; arguments and errors as for `load_teacher`."""
  return tuple(load_teacher(config, data, folder) for folder in teacher_folders(config.teacher, workdir))


def check_named_teachers(config: Config) -> None:
  """Checks, before any work, that `teacher.checkpoint` names trained teachers, if it names any; reads no arrays.

  Raises:
    UserError: a folder has no teacher.
  """
  for folder in teacher_folders(config.teacher, '') if config.teacher.checkpoint else ():
    _existing_description(folder)


def state_template(config: Config, num_identities: int) -> TeacherState:
  """Returns a TeacherState of ShapeDtypeStructs, replicated over all devices, to restore a checkpoint into."""
  network = make_teacher_network(config, num_identities)
  # The steps per epoch affect no shape.
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch=1)
  shapes = jax.eval_shape(lambda: create_teacher_state(network, optimizer, config.seed))
  everywhere = replicated(make_mesh())
  template: TeacherState = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),  # type: ignore[no-untyped-call]
    shapes,
  )
  return template


def _existing_description(folder: pathlib.Path) -> Description:
  description = read_description(folder)
  if description is None:
    raise UserError(f'no teacher in {folder}: {DESCRIPTION_FILE} is missing. Train one first (`dgnet teacher`).')
  return description
