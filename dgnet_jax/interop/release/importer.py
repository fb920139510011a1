"""Converts the release's files to a work folder that can be evaluated, generated from and trained further."""

from collections.abc import Mapping, Sequence
import contextlib
import logging
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dgnet_jax.config import loading
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves, shown, validate
from dgnet_jax.errors import UserError
from dgnet_jax.interop.release.config import config_fields, parts_not_in_release, read_yaml, teacher_fields
from dgnet_jax.interop.release.files import KEPT_ARRAYS, KEPT_FOLDER, ReleaseFiles, read_state_dict
from dgnet_jax.interop.release.names import NETWORKS, OURS, network_entries
from dgnet_jax.interop.release.optimizer import (
  SavedOptimizer,
  adam_betas,
  rate_notes,
  read_moments,
  read_optimizers,
  update_count,
)
from dgnet_jax.interop.release.sizes import num_identities, release_sizes
from dgnet_jax.interop.strict import Loaded, load_strictly
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.optimizers import Moments, make_optimizers, make_teacher_optimizer, with_progress
from dgnet_jax.training.state import new_network_state
from dgnet_jax.training.teacher_step import TeacherState
from dgnet_jax.training.teacher_store import describe_teacher, write_description
from dgnet_jax.types import NetworkState, TrainState
from dgnet_jax.utils.atomic_files import atomic_folder
from dgnet_jax.utils.paths import check_writable

logger = logging.getLogger(__name__)


def import_release(
  files: ReleaseFiles,
  workdir: str | pathlib.Path,
  *,
  overrides: Mapping[str, str] | None = None,
  drop: Sequence[str] = (),
) -> pathlib.Path:
  """Creates a work folder from a snapshot. Nothing is written unless everything is valid.

  Args:
    files: from `find_files`.
    workdir: the folder to create.
    overrides: fields of our config with the text of their values; they take precedence over the release's files.
    drop: patterns of arrays without a counterpart here that may be dropped.

  Returns:
    The folder: config.json, checkpoints/, teacher/, and release/ with what only the release has.

  Raises:
    UserError: a file is damaged or does not fit, or the folder exists already. The message lists all problems.
  """
  workdir = check_writable(workdir)
  if workdir.exists():
    raise UserError(f'{workdir} already exists; choose another work folder, or remove it')
  sources = {name: str(path) for name, path in files.paths.items()}
  state_dicts = {}
  for network in NETWORKS:
    if network in files.paths:
      logger.info(f'reading {files.paths[network]}')
      state_dicts[network] = read_state_dict(network, files.paths[network])
  optimizers = _read_optimizers(files)
  fields = release_sizes(state_dicts, sources)
  config = _make_config(files.paths, fields, adam_betas(optimizers) if optimizers else None, overrides or {})
  classes = num_identities(state_dicts, sources)
  shapes = variable_shapes(config, classes)
  loaded = _load_networks(state_dicts, config, shapes, sources, drop)
  moments, step = _read_moments(optimizers, config, loaded, shapes, files)
  state = _make_train_state(config, classes, loaded, moments, step)
  with atomic_folder(workdir) as folder:
    loading.save_config(config, folder / loading.SAVED_CONFIG)
    _save(folder / 'checkpoints', step, state, config)
    if 'teacher' in loaded:
      _write_teacher(config, classes, loaded['teacher'], folder / 'teacher')
    write_torch(folder / KEPT_FOLDER / KEPT_ARRAYS, {name: network.extras for name, network in loaded.items()})
    for name in ('config', 'opts'):
      if name in files.paths:
        shutil.copy(files.paths[name], folder / KEPT_FOLDER / f'{name}.yaml')
  logger.info(f'{workdir}: step {step}, {classes} identities')
  return workdir


def _read_optimizers(files: ReleaseFiles) -> dict[str, SavedOptimizer] | None:
  if 'optimizer' not in files.paths:
    logger.info('without optimizer: all moments start at 0')
    return None
  logger.info(f'reading {files.paths["optimizer"]}')
  return read_optimizers(files.paths['optimizer'])


def _make_config(
  paths: Mapping[str, pathlib.Path],
  sizes: Mapping[str, Any],
  betas: tuple[float, float] | None,
  overrides: Mapping[str, str],
) -> Config:
  """Returns our config from the settings, the shapes of the arrays, the optimizer's betas and the overrides.

  Raises:
    ConfigError: values are invalid, or the settings disagree with the shapes.
  """
  fields = _read_settings(paths)
  problems = [
    f'{name}: {fields[name]!r} in the settings, but {value!r} by the shapes of the arrays'
    for name, value in sizes.items()
    if name in fields and fields[name] != value
  ]
  fields |= sizes
  if betas is not None:
    # torch resumes with the betas in optimizer.pt, so these are what the run used.
    if (settings := fields.get('optimizer.adam_betas', betas)) != betas:
      logger.info(f'{paths["config"]}: Adam betas {settings} replaced by {betas}, with which optimizer.pt was trained')
    fields['optimizer.adam_betas'] = betas
  config = default_config()
  defaults = dict(leaves(config))
  for name, value in fields.items():
    is_whole = isinstance(defaults[name], int) and isinstance(value, float) and value.is_integer()
    try:
      loading.set_field(config, name, int(value) if is_whole else value)
    except OverflowError:  # a whole number that no float can hold
      problems.append(f'{name}: {shown(value)} is too large')
  problems += loading.apply_overrides(config, overrides)
  problems += parts_not_in_release(config.reid, 'reid') + parts_not_in_release(config.teacher, 'teacher')
  return validate(config, problems)


def _read_settings(paths: Mapping[str, pathlib.Path]) -> dict[str, Any]:
  """Returns the fields of our config in config.yaml and opts.yaml."""
  fields: dict[str, Any] = {}
  for name, convert in (('config', config_fields), ('opts', teacher_fields)):
    if name in paths:
      values, notes = convert(read_yaml(paths[name]), str(paths[name]))
      fields |= values
      for note in notes:
        logger.info(note)
    elif name == 'config' or 'teacher' in paths:
      logger.info(f"no {name}.yaml: the release's default settings are used")
  return fields


def variable_shapes(config: Config, num_identities: int) -> dict[str, Any]:
  """Returns the shapes of our variables {'params', 'batch_stats'} by the release's names of the networks."""
  networks, teacher = make_networks(config, num_identities), make_teacher_network(config, num_identities)
  key = jax.random.key(0)
  variables = {
    'gen': (jax.eval_shape(networks.init_generator, key), {}),
    'dis': (jax.eval_shape(networks.init_discriminator, key), {}),
    'id': jax.eval_shape(networks.init_reid, key),
    'teacher': jax.eval_shape(teacher.init, key),
  }
  return {name: {'params': params, 'batch_stats': stats} for name, (params, stats) in variables.items()}


def _load_networks(
  state_dicts: Mapping[str, Mapping[str, np.ndarray]],
  config: Config,
  shapes: Mapping[str, Any],
  sources: Mapping[str, str],
  drop: Sequence[str],
) -> dict[str, Loaded]:
  """Returns our variables of every network; raises one UserError for all networks that do not fit."""
  loaded, errors = {}, []
  for network, state_dict in state_dicts.items():
    try:
      entries = network_entries(network, config)
      loaded[network] = load_strictly(state_dict, entries, shapes[network], source=sources[network], drop=drop)
    except UserError as error:
      errors.append(str(error))
  if errors:
    raise UserError('\n'.join(errors))
  return loaded


def _read_moments(
  optimizers: Mapping[str, SavedOptimizer] | None,
  config: Config,
  loaded: Mapping[str, Loaded],
  shapes: Mapping[str, Any],
  files: ReleaseFiles,
) -> tuple[dict[str, Moments], int]:
  """Returns the moments of the optimizers, and the number of iterations done."""
  if optimizers is None:
    return {}, files.step
  moments = {
    network: read_moments(
      network, optimizers[network], loaded[network].order, network_entries(network, config), shapes[network]
    )
    for network in OURS
    if network in loaded
  }
  path = files.paths['optimizer']
  counts = {int(adam.count) for adam in moments.values() if isinstance(adam, optax.ScaleByAdamState)}
  step = max(counts)
  # Some snapshots of the release are named a step ahead, and it keeps one optimizer.pt for all snapshots.
  if len(counts) > 1 or step not in (files.step, files.step - 1):
    raise UserError(
      f'{path} belongs to step {", ".join(map(str, sorted(counts)))}, but the networks to step {files.step}: the '
      'release keeps only the optimizers of its last snapshot. Import that snapshot (--step), or pass --without '
      'optimizer.'
    )
  if step != files.step:
    logger.info(f'{path}: {step} iterations were done, although the files are named {files.step}')
  for note in rate_notes(optimizers, config, step):
    logger.warning(note)
  return moments, step


def _make_train_state(
  config: Config, num_identities: int, loaded: Mapping[str, Loaded], moments: Mapping[str, Moments], step: int
) -> TrainState:
  optimizers = make_optimizers(config)
  init_key, base_key = jax.random.split(jax.random.key(config.seed))
  states: dict[str, NetworkState] = {}
  for name, network in OURS.items():
    if name in loaded:
      variables = jax.tree.map(jnp.asarray, loaded[name].variables)
    else:  # only the discriminator can be missing
      logger.info(f'without {name}: the {network} starts with random weights')
      params = make_networks(config, num_identities).init_discriminator(init_key)
      variables = {'params': params, 'batch_stats': {}}
    state = new_network_state(variables['params'], variables['batch_stats'], getattr(optimizers, network))
    states[network] = NetworkState(
      state.params, state.batch_stats, with_progress(state.opt_state, step, moments.get(name))
    )
  return TrainState(step=jnp.asarray(step, jnp.int32), rng=base_key, **states)


def _save(folder: pathlib.Path, step: int, state: TrainState | TeacherState, config: Config) -> None:
  with contextlib.closing(Checkpoints(folder, config.log.keep_checkpoints, config)) as checkpoints:
    checkpoints.save(step, state, wait=True)


def _write_teacher(config: Config, num_identities: int, loaded: Loaded, folder: pathlib.Path) -> None:
  """Saves a trained teacher as `train_teacher` does. Only the number of its identities is known."""
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch=1)
  variables = jax.tree.map(jnp.asarray, loaded.variables)
  state = new_network_state(variables['params'], variables['batch_stats'], optimizer)
  # BatchNorm counts the steps of the training.
  step = update_count(loaded.extras.get('model.bn1.num_batches_tracked')) or 0
  network = NetworkState(state.params, state.batch_stats, with_progress(state.opt_state, step))
  teacher = TeacherState(jnp.asarray(step, jnp.int32), network, jax.random.key(config.seed))
  _save(folder / 'checkpoints', step, teacher, config)
  write_description(describe_teacher(config, num_identities, None), step, folder)
