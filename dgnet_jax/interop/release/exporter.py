"""Converts a work folder to files that the release loads."""

import contextlib
import logging
import pathlib
from typing import Any

import jax
import numpy as np
import yaml

from dgnet_jax.config.loading import SAVED_CONFIG, load_config
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.interop.release.config import (
  OURS_ALONE,
  TEACHER_FIELDS,
  TEACHER_FIXED,
  parts_not_in_release,
  read_yaml,
  release_settings,
)
from dgnet_jax.interop.release.files import KEPT_ARRAYS, KEPT_FOLDER
from dgnet_jax.interop.release.names import OURS, network_entries, release_state_dict
from dgnet_jax.interop.release.optimizer import release_optimizer
from dgnet_jax.interop.strict import check_state_dict
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.models.build import make_networks
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.teacher_store import DESCRIPTION_FILE, read_teacher, teacher_folders
from dgnet_jax.types import TrainState
from dgnet_jax.utils.atomic_files import atomic_folder
from dgnet_jax.utils.paths import check_writable, local_path

logger = logging.getLogger(__name__)

KeptArrays = dict[str, dict[str, np.ndarray]]


def export_release(workdir: str | pathlib.Path, folder: str | pathlib.Path, *, step: int | None = None) -> pathlib.Path:
  """Writes gen_*.pt, dis_*.pt, id_*.pt, optimizer.pt, config.yaml, and teacher/ with net_last.pth and opts.yaml.

  Arrays that only the release has (ImageNet head, counters, AdaIN's statistics) come from the import if the run began
  with one; otherwise they get their initial values.

  Args:
    workdir: work folder of a run or an import.
    folder: the folder to create.
    step: step of the checkpoint; None takes the newest.

  Returns:
    The folder.

  Raises:
    UserError: the run or the checkpoint is missing or damaged, the run has no generator, the release has no
      counterpart of its networks, or the folder exists already.
  """
  workdir, folder = local_path(workdir), check_writable(folder)
  if folder.exists():
    raise UserError(f'{folder} already exists; choose another folder, or remove it')
  config = load_config(workdir / SAVED_CONFIG, {})
  if not config.joint:
    raise UserError(f'{workdir}: trained on real images only (joint=False), so there is no generator to export')
  if config.generator.design != 'adain':
    raise UserError(f'{workdir}: generator.design={config.generator.design}: {OURS_ALONE["generator.design"]}')
  if config.generator.non_local_residual:
    raise UserError(f'{workdir}: generator.non_local_residual: {OURS_ALONE["generator.non_local_residual"]}')
  if problems := parts_not_in_release(config.reid, 'reid'):
    raise UserError('\n  '.join([f'{workdir}: the release has no such re-id network:', *problems]))
  num_identities, state = read_state(config, workdir, step)
  logger.info(f'{workdir}: step {int(state.step)}, {num_identities} identities')
  kept = _read_kept_arrays(workdir)
  files = _network_files(config, state, kept)
  if teacher := _teacher_state_dict(config, num_identities, workdir, kept):
    files['teacher/net_last.pth'] = teacher
  with atomic_folder(folder) as unfinished:
    for name, content in files.items():
      logger.info(f'writing {folder / name}')
      write_torch(unfinished / name, content)
    _write_settings(config, num_identities, workdir / KEPT_FOLDER, unfinished)
  return folder


def read_state(config: Config, workdir: pathlib.Path, step: int | None) -> tuple[int, TrainState]:
  """Reads a checkpoint.

  Args:
    config: the run's config.
    workdir: the run's work folder.
    step: step of the checkpoint; None takes the newest.

  Returns:
    The number of identities and the state.
  """
  with contextlib.closing(Checkpoints(workdir / 'checkpoints', config=config)) as checkpoints:
    num_identities = checkpoints.num_identities(step)
    networks, optimizers = make_networks(config, num_identities), make_optimizers(config)
    template = jax.eval_shape(lambda: create_train_state(networks, optimizers, config.seed))
    state: TrainState = checkpoints.restore(template, step)
    return num_identities, state


def _read_kept_arrays(workdir: pathlib.Path) -> KeptArrays:
  """Returns the arrays that only the release has, by network; empty if the run did not begin with an import."""
  path = workdir / KEPT_FOLDER / KEPT_ARRAYS
  if not path.exists():
    return {}
  content = read_torch(path)
  if not isinstance(content, dict):
    raise UserError(f'{path} is damaged; remove it to export initial values of these arrays instead')
  return {name: check_state_dict(arrays, str(path)) for name, arrays in content.items() if arrays}


def _network_files(config: Config, state: TrainState, kept: KeptArrays) -> dict[str, Any]:
  """Returns the contents of gen_*.pt, dis_*.pt, id_*.pt and optimizer.pt by file name."""
  step = int(state.step)
  files: dict[str, Any] = {}
  optimizers: dict[str, Any] = {}
  for name, ours in OURS.items():
    network, entries = getattr(state, ours), network_entries(name, config)
    variables = jax.device_get({'params': network.params, 'batch_stats': network.batch_stats})
    state_dict = release_state_dict(name, variables, entries, kept.get(name, {}))
    files[f'{name}_{step:08d}.pt'] = {'a': state_dict}
    optimizers[name] = release_optimizer(name, network.opt_state, list(state_dict), entries, config, step)
  return files | {'optimizer.pt': optimizers}


def _teacher_state_dict(
  config: Config, num_identities: int, workdir: pathlib.Path, kept: KeptArrays
) -> dict[str, np.ndarray] | None:
  """Returns the first teacher's state dict; None if there is no teacher, or the release has none of its kind."""
  folder, *others = teacher_folders(config.teacher, workdir)
  if others:
    logger.info(f'the release has one teacher; not exported: {", ".join(map(str, others))}')
  if not (folder / DESCRIPTION_FILE).exists():
    logger.info(f'no teacher in {folder}; none is exported')
    return None
  if problems := parts_not_in_release(config.teacher, 'teacher'):
    logger.warning(f'the teacher is not exported: {"; ".join(problems)}')
    return None
  teacher = jax.device_get(read_teacher(config, num_identities, folder))
  variables = {'params': teacher.params, 'batch_stats': teacher.batch_stats}
  return release_state_dict('teacher', variables, network_entries('teacher', config), kept.get('teacher', {}))


def _write_settings(config: Config, num_identities: int, kept: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes config.yaml and, beside a teacher, opts.yaml; settings that have no field here are those of the import."""

  def kept_settings(name: str) -> dict[str, Any]:
    return read_yaml(kept / name) if (kept / name).exists() else {}

  settings, notes = release_settings(config, num_identities, kept_settings('config.yaml'))
  for note in notes:
    logger.warning(note)
  (folder / 'config.yaml').write_text(yaml.safe_dump(settings), encoding='utf-8')
  if (folder / 'teacher').is_dir():
    ours = {key: getattr(config.teacher, field.rpartition('.')[2]) for key, field in TEACHER_FIELDS.items()}
    options = kept_settings('opts.yaml') | TEACHER_FIXED | ours | {'nclasses': num_identities}
    (folder / 'teacher' / 'opts.yaml').write_text(yaml.safe_dump(options), encoding='utf-8')
