"""Predictors from the checkpoints of a run."""

import contextlib
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp

from dgnet_jax.config.loading import complete_config
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.inference.model_file import SUFFIX, read_model
from dgnet_jax.inference.predictor import Predictor, TeacherPredictor
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.storage.local_copies import fetched
from dgnet_jax.storage.run_files import descriptions, newest_checkpoints, with_checkpoint
from dgnet_jax.training.agreement import from_first_process
from dgnet_jax.training.best_step import require_best_step
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.data_record import read_record, saved_steps
from dgnet_jax.training.teacher_store import load_teacher, teacher_folders
from dgnet_jax.types import Array
from dgnet_jax.utils.paths import is_address, local_path, packaged_models

BEST = 'best'
Step = int | str | None  # of a checkpoint: a number, BEST, or None for the newest valid one


def load_predictor(
  config: Config, workdir: str | pathlib.Path, *, batch_size: int | None = None, step: Step = None
) -> Predictor:
  """Restores a checkpoint of a run; the discriminator and the optimizers are not read.

  Args:
    config: the run's config; it may name other data than the run was trained on.
    workdir: the run's work folder.
    batch_size: images per call of a network; by default `config.evaluation.batch_size`.
    step: which checkpoint.

  Raises:
    UserError: there is no such checkpoint, or it is damaged (all are, if it may be any), or it does not fit the config.
  """
  number = numbered_step(pathlib.Path(workdir), step)
  with contextlib.closing(Checkpoints(pathlib.Path(workdir) / 'checkpoints', config=config)) as checkpoints:
    return restore_predictor(config, checkpoints, batch_size=batch_size or config.evaluation.batch_size, step=number)


def numbered_step(workdir: pathlib.Path, step: Step) -> int | None:
  """Returns the number of a chosen checkpoint, the same in all processes; None for the newest valid one.

  Raises:
    UserError: there is no such checkpoint, or none is known to be the best.
  """

  def find() -> int | None:
    if step == BEST:
      return require_best_step(workdir)
    steps = sorted(saved_steps(workdir / 'checkpoints'))
    if step is not None and step not in steps:
      there = f'there are those of {", ".join(map(str, steps))}' if steps else 'there is none'
      raise UserError(f'{workdir / "checkpoints"}: no checkpoint of step {step}; {there}')
    return None if step is None else int(step)

  return from_first_process(find)


def restore_predictor(
  config: Config, checkpoints: Checkpoints, *, batch_size: int, step: int | None = None
) -> Predictor:
  """Like `load_predictor`, from an open folder of checkpoints.

  Args:
    config: the run's config.
    checkpoints: the run's checkpoints.
    batch_size: images per call of a network.
    step: step of the checkpoint to restore; None is the newest valid one.
  """
  if checkpoints.latest_step() is None:
    raise UserError(f'{checkpoints.folder}: no checkpoint of DG-Net; `dgnet train` writes one')
  checkpoints.require_design(config, step)
  mesh = make_mesh(jax.local_devices())
  num_identities = checkpoints.num_identities(step)
  networks = make_networks(config, num_identities)

  def parameters(key: Array) -> dict[str, Any]:
    reid, reid_stats = networks.init_reid(key)
    generator = networks.init_generator(key)
    return {
      'step': jnp.int32(0),
      'generator': {'params': generator},
      'reid': {'params': reid, 'batch_stats': reid_stats},
    }

  template = jax.eval_shape(parameters, jax.random.key(0))
  template = jax.tree.map(lambda leaf: leaf.update(sharding=replicated(mesh)), template)
  state = checkpoints.restore_part(template, step)
  # A run with joint=False saves a generator too, but never trained it.
  is_joint = checkpoints.saved_config(step).get('joint', True)
  return Predictor(
    networks=networks,
    generator=state['generator']['params'] if is_joint else None,
    reid=state['reid']['params'],
    reid_stats=state['reid']['batch_stats'],
    mesh=mesh,
    batch_size=batch_size,
    num_identities=num_identities,
    step=int(state['step']),
  )


def open_model(
  path: str | os.PathLike[str], *, batch_size: int, step: Step = None
) -> tuple[Predictor, Config, pathlib.Path]:
  """Opens a trained model, wherever it is.

  Args:
    path: as for `find_checkpoints`, a model file, or the name of a model that comes with the package.
    batch_size: images per call of a network.
    step: as for `find_checkpoints`.

  Returns:
    The predictor, the config of its run, and the work folder or the file.

  Raises:
    UserError: there is no such model, or it is damaged.
  """
  file = _model_file(os.fspath(path))
  if file is not None:
    if step is not None:
      raise UserError(f'{path} is one model; name the work folder of a run to choose step {step}')
    return *read_model(file, batch_size=batch_size), file
  workdir, folder, number = find_checkpoints(path, step)
  with contextlib.closing(Checkpoints(folder)) as checkpoints:
    if checkpoints.latest_step() is None:
      raise UserError(f'{folder}: no checkpoint in this folder')
    try:
      config = complete_config(checkpoints.saved_config(number))
    except UserError as error:
      raise UserError(f'{folder}: {error}') from error
    return restore_predictor(config, checkpoints, batch_size=batch_size, step=number), config, workdir


def _model_file(path: str) -> pathlib.Path | None:
  """Returns the model file that a path or a name stands for; None if it is not one."""
  if is_address(path) or pathlib.Path(path).is_dir():
    return None
  return local_path(path) if path.endswith(SUFFIX) else packaged_models().get(path)


def load_teacher_predictor(
  config: Config, workdir: str | pathlib.Path, num_identities: int, *, batch_size: int | None = None
) -> TeacherPredictor:
  """Restores the teacher of a run, the first if it has several.

  Args:
    config: the run's config.
    workdir: the run's work folder.
    num_identities: number of identities in the run's training data.
    batch_size: images per call of the network; by default `config.evaluation.batch_size`.

  Raises:
    UserError: the teacher is missing, not fully trained or damaged, or it does not fit the config or the run's data.
  """
  mesh = make_mesh(jax.local_devices())
  data = read_record(pathlib.Path(workdir))
  # A record of another number of classes is not of this run.
  fits = data is not None and len(data.identities) == num_identities
  folder = teacher_folders(config.teacher, workdir)[0]
  teacher = load_teacher(config, data if data is not None and fits else num_identities, folder)
  return TeacherPredictor(
    network=make_teacher_network(config, num_identities),
    teacher=jax.device_put(jax.device_get(teacher), replicated(mesh)),  # from the devices of all processes to ours
    mesh=mesh,
    batch_size=batch_size or config.evaluation.batch_size,
  )


def find_checkpoints(path: str | os.PathLike[str], step: Step = None) -> tuple[pathlib.Path, pathlib.Path, int | None]:
  """Finds the checkpoints that a path stands for.

  Args:
    path: work folder, its folder of checkpoints, or one checkpoint; of a folder on object storage what is needed is
      copied.
    step: which checkpoint, if the path is not one.

  Returns:
    The work folder, its folder of checkpoints, and the step; None is the newest.

  Raises:
    UserError: the path is none of these, it is a checkpoint and a step is named, too, there is no such checkpoint, or
      the storage cannot be read.
  """
  path = _fetched_checkpoints(os.fspath(path), step) if is_address(path) else local_path(path)
  if (path / 'checkpoints').is_dir():
    return path, path / 'checkpoints', numbered_step(path, step)
  if path.is_dir() and path.name == 'checkpoints':
    return path.parent, path, numbered_step(path.parent, step)
  if path.is_dir() and path.name.isdecimal():
    if step is not None:
      raise UserError(f'{path} is one checkpoint; name the work folder to choose step {step}')
    return path.absolute().parent.parent, path.absolute().parent, int(path.name)
  problem = 'not a work folder or a checkpoint of a run' if path.exists() else 'no such folder'
  raise UserError(f'{path}: {problem} (a run has checkpoints in <workdir>/checkpoints/<step>)')


def _fetched_checkpoints(address: str, step: Step) -> pathlib.Path:
  """Copies what `address`, which may be anything that `find_checkpoints` takes, needs; returns its local path."""
  match = re.fullmatch(r'(?P<run>.*?)(?P<inside>/checkpoints(/(?P<step>[0-9]+))?)?/*', address)
  assert match  # it fits everything
  chosen = match['step'] or step
  if chosen == BEST:
    chosen = require_best_step(fetched(match['run'], descriptions))
  folder = fetched(match['run'], newest_checkpoints if chosen is None else with_checkpoint(int(chosen)))
  return folder / (match['inside'] or '/').lstrip('/')
