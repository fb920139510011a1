"""From a work folder of ours to files that the release loads."""

import contextlib
import logging
import pathlib
from typing import Any

import jax
import yaml

from dgnet_jax.config import loading
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.interop.release.config import OURS_ALONE, TEACHER_FIELDS, TEACHER_FIXED, read_yaml, release_config
from dgnet_jax.interop.release.files import KEPT_ARRAYS, KEPT_FOLDER, OURS
from dgnet_jax.interop.release.names import ENTRIES, release_state_dict
from dgnet_jax.interop.release.optimizer import release_optimizer
from dgnet_jax.interop.strict import check_state_dict
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.models.build import make_networks
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.teacher_loop import DESCRIPTION_FILE, read_teacher, teacher_folders
from dgnet_jax.types import TrainState
from dgnet_jax.utils.atomic_files import atomic_folder

logger = logging.getLogger(__name__)


def export_release(workdir: str | pathlib.Path, folder: str | pathlib.Path, *, step: int | None = None) -> pathlib.Path:
  """Writes gen_*.pt, dis_*.pt, id_*.pt, optimizer.pt, config.yaml, and teacher/ with net_last.pth and opts.yaml.

  What only the release has (ImageNet head, counters, AdaIN's statistics) is that of the import, where there was one.

  Args:
    workdir: of a run, or of an import.
    folder: to make.
    step: of the checkpoint; None takes the newest.

  Returns:
    The folder.

  Raises:
    UserError: there is no run or checkpoint, one is damaged, the run has no generator, or the folder is there already.
  """
  workdir, folder = pathlib.Path(workdir), pathlib.Path(folder)
  if folder.exists():
    raise UserError(f'{folder} is there already; name another folder, or remove it')
  config = loading.load_config(workdir / 'config.json', {})
  if not config.joint:
    raise UserError(f'{workdir}: learned from real images only (joint=False): it has no generator to export')
  if config.generator.non_local_residual:
    raise UserError(f'{workdir}: generator.non_local_residual: {OURS_ALONE["generator.non_local_residual"]}')
  people, state = read_state(config, workdir, step)
  done = int(state.step)
  kept = _kept_arrays(workdir)
  logger.info(f'step {done} of {workdir}, {people} people')

  written: dict[str, Any] = {}
  optimizer: dict[str, Any] = {}
  for name, ours in OURS.items():
    network, entries = getattr(state, ours), ENTRIES[name](config)
    variables = jax.device_get({'params': network.params, 'batch_stats': network.batch_stats})
    state_dict = release_state_dict(name, variables, entries, kept.get(name, {}))
    written[f'{name}_{done:08d}.pt'] = {'a': state_dict}
    optimizer[name] = release_optimizer(name, network.opt_state, list(state_dict), entries, config, done)
  written['optimizer.pt'] = optimizer
  teacher_folder, *others = teacher_folders(config, workdir)
  if others:
    logger.info(f'the release has one teacher: {", ".join(map(str, others))} left out')
  if (teacher_folder / DESCRIPTION_FILE).exists():
    teacher = jax.device_get(read_teacher(config, people, teacher_folder))
    variables = {'params': teacher.params, 'batch_stats': teacher.batch_stats}
    entries = ENTRIES['teacher'](config)
    written['teacher/net_last.pth'] = release_state_dict('teacher', variables, entries, kept.get('teacher', {}))
  else:
    logger.info(f'no teacher in {teacher_folder}, none is written')

  with atomic_folder(folder) as aside:
    for name, tree in written.items():
      logger.info(f'writing {folder / name}')
      write_torch(aside / name, tree)
    _write_settings(config, people, workdir / KEPT_FOLDER, aside)
  return folder


def read_state(config: Config, workdir: pathlib.Path, step: int | None) -> tuple[int, TrainState]:
  """The class count and the state of a checkpoint.

  Args:
    config: of the run.
    workdir: of the run.
    step: of the checkpoint; None takes the newest.
  """
  with contextlib.closing(Checkpoints(workdir / 'checkpoints', config=config)) as checkpoints:
    people = checkpoints.num_identities(step)
    networks, optimizers = make_networks(config, people), make_optimizers(config)
    form = jax.eval_shape(lambda: create_train_state(networks, optimizers, config.seed))
    return people, checkpoints.restore(form, step)


def _kept_arrays(workdir: pathlib.Path) -> dict[str, Any]:
  path = workdir / KEPT_FOLDER / KEPT_ARRAYS
  if not path.exists():
    return {}
  content = read_torch(path)
  if not isinstance(content, dict):
    raise UserError(f'{path}: damaged; remove it to make these arrays anew')
  return {name: check_state_dict(arrays, str(path)) for name, arrays in content.items() if arrays}


def _write_settings(config: Config, people: int, kept: pathlib.Path, folder: pathlib.Path) -> None:
  """config.yaml and, beside a teacher, opts.yaml; keys without a counterpart are those of the import."""

  def kept_values(name: str) -> dict[str, Any]:
    return read_yaml(kept / name) if (kept / name).exists() else {}

  values, lines = release_config(config, people, kept_values('config.yaml'))
  for line in lines:
    logger.info(line)
  (folder / 'config.yaml').write_text(yaml.safe_dump(values))
  if (folder / 'teacher').is_dir():
    ours = {key: getattr(config.teacher, field.rpartition('.')[2]) for key, field in TEACHER_FIELDS.items()}
    opts = kept_values('opts.yaml') | TEACHER_FIXED | ours | {'nclasses': people}
    (folder / 'teacher' / 'opts.yaml').write_text(yaml.safe_dump(opts))
