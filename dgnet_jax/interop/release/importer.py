"""From the release's files to a work folder of ours that evaluates, generates and resumes."""

from collections.abc import Mapping, Sequence
import contextlib
import json
import logging
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp

from dgnet_jax.config import loading, validation
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.interop.release import config as release_config
from dgnet_jax.interop.release.files import KEPT_ARRAYS, KEPT_FOLDER, OURS, ReleaseFiles, read_state_dict
from dgnet_jax.interop.release.names import ENTRIES
from dgnet_jax.interop.release.optimizer import load_slots, whole_number
from dgnet_jax.interop.release.sizes import num_identities, release_sizes
from dgnet_jax.interop.strict import Loaded, load_strictly
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.optimizers import make_optimizers, make_teacher_optimizer, with_slots
from dgnet_jax.training.teacher_loop import DESCRIPTION_FILE, describe_teacher
from dgnet_jax.training.teacher_step import TeacherState
from dgnet_jax.types import NetworkState, TrainState
from dgnet_jax.utils.atomic_files import atomic_folder

logger = logging.getLogger(__name__)


def import_release(
  files: ReleaseFiles,
  workdir: str | pathlib.Path,
  *,
  overrides: Mapping[str, str] | None = None,
  drop: Sequence[str] = (),
) -> pathlib.Path:
  """Writes a work folder of ours; nothing is written before everything has been found right.

  Args:
    files: of `find_files`.
    workdir: the folder to make.
    overrides: fields of our config with texts, over what the release's files say.
    drop: patterns of names without a place in ours that may be left out.

  Returns:
    The folder: config.json, checkpoints/, teacher/, and release/ with what only the release has.

  Raises:
    UserError: a file is damaged or does not fit, or the folder is there already; says everything that is wrong.
  """
  workdir = pathlib.Path(workdir)
  if workdir.exists():
    raise UserError(f'{workdir} is there already; name another folder, or remove it')
  paths = files.paths
  where = {name: str(path) for name, path in paths.items()}
  state_dicts = {}
  for name in ('gen', 'dis', 'id', 'teacher'):
    if name in paths:
      logger.info(f'reading {paths[name]}')
      state_dicts[name] = read_state_dict(name, paths[name])
  config, kept_yaml = _config(paths, release_sizes(state_dicts, where), overrides or {})
  people = num_identities(state_dicts, where)
  loaded, errors = {}, []
  forms = templates(config, people)
  for name, state_dict in state_dicts.items():
    try:
      entries = ENTRIES[name](config)
      loaded[name] = load_strictly(state_dict, entries, forms[name], where=where[name], drop=drop)
    except UserError as error:
      errors.append(str(error))
  if errors:
    raise UserError('\n'.join(errors))
  state = _train_state(config, people, loaded, forms, files)
  with atomic_folder(workdir) as aside:
    loading.save_config(config, aside / 'config.json')
    _save(aside / 'checkpoints', int(state.step), state, config)
    if 'teacher' in loaded:
      _write_teacher(config, people, loaded['teacher'], aside / 'teacher')
    kept = aside / KEPT_FOLDER
    write_torch(kept / KEPT_ARRAYS, {name: network.extras for name, network in loaded.items()})
    for path in kept_yaml:
      shutil.copy(path, kept / path.name)
  logger.info(f'step {int(state.step)}, {people} people: {workdir}')
  return workdir


def _config(
  paths: Mapping[str, pathlib.Path], sizes: Mapping[str, Any], overrides: Mapping[str, str]
) -> tuple[Config, list[pathlib.Path]]:
  """Our config, checked, and the files of settings that it was made from."""
  config = default_config()
  references = dict(validation.leaves(config))
  told: dict[str, Any] = {}
  for name, read in (('config', release_config.our_fields), ('opts', release_config.teacher_fields)):
    if name in paths:
      fields, lines = read(release_config.read_yaml(paths[name]), str(paths[name]))
      told |= dict(release_config.with_indices(fields, references))
      for line in lines:
        logger.info(line)
    elif name == 'config' or 'teacher' in paths:
      logger.info(f"no {name}.yaml: the release's own values are taken for what shapes do not tell")
  # The shapes are the truth; a setting that says otherwise belongs to other files.
  problems = [
    f'{name}: {told[name]!r} by the settings, {value!r} by the shapes of the arrays'
    for name, value in sizes.items()
    if name in told and told[name] != value
  ]
  for name, value in (told | dict(sizes)).items():
    whole = isinstance(references[name], int) and isinstance(value, float) and value.is_integer()
    loading.set_field(config, name, int(value) if whole else value)
  problems += loading.apply_overrides(config, overrides)
  return validation.validate(config, problems), [paths[name] for name in ('config', 'opts') if name in paths]


def templates(config: Config, people: int) -> dict[str, Any]:
  """The forms of our variables by the release's network names."""
  networks, teacher = make_networks(config, people), make_teacher_network(config, people)
  key = jax.random.key(0)
  generator = {'params': jax.eval_shape(networks.init_generator, key)}
  discriminator = {'params': jax.eval_shape(networks.init_discriminator, key)}
  made = {'id': jax.eval_shape(networks.init_reid, key), 'teacher': jax.eval_shape(teacher.init, key)}
  with_stats = {name: {'params': params, 'batch_stats': stats} for name, (params, stats) in made.items()}
  return {'gen': generator, 'dis': discriminator} | with_stats


def _train_state(
  config: Config, people: int, loaded: Mapping[str, Loaded], forms: Mapping[str, Any], files: ReleaseFiles
) -> TrainState:
  """A fresh state with the release's numbers in it."""
  optimizers = make_optimizers(config)
  gathered, step = _gathered(config, loaded, forms, files)
  init_key, base_key = jax.random.split(jax.random.key(config.seed))
  states: dict[str, NetworkState] = {}
  for name, ours in OURS.items():
    if name in loaded:
      variables = jax.tree.map(jnp.asarray, loaded[name].variables)
    else:  # only the discriminator can be absent
      logger.info(f'without {name}: the {ours} begins anew')
      variables = {'params': make_networks(config, people).init_discriminator(init_key), 'batch_stats': {}}
    fresh = jax.jit(getattr(optimizers, ours).init)(variables['params'])
    opt_state = with_slots(fresh, step, gathered.get(name, {}))
    states[ours] = NetworkState(variables['params'], variables['batch_stats'], opt_state)
  return TrainState(step=jnp.asarray(step, jnp.int32), rng=base_key, **states)


def _gathered(
  config: Config, loaded: Mapping[str, Loaded], forms: Mapping[str, Any], files: ReleaseFiles
) -> tuple[dict[str, dict[str, Any]], int]:
  """What the optimisers have gathered, and the iterations done."""
  if 'optimizer' not in files.paths:
    logger.info("without optimizer: the optimisers' moments begin anew")
    return {}, files.step
  path = files.paths['optimizer']
  logger.info(f'reading {path}')
  saved = read_torch(path)
  gathered: dict[str, dict[str, Any]] = {}
  counts: set[int] = set()
  for name in OURS:
    if not isinstance(saved, dict) or name not in saved:
      raise UserError(f"{path}: no optimizer.pt of the release, which has the parts 'gen', 'dis' and 'id'")
    if name in loaded:
      gathered[name], count = load_slots(
        name, saved[name], loaded[name].order, ENTRIES[name](config), forms[name], f'{path}, {name}'
      )
      counts |= set() if count is None else {count}
  step = max(counts)
  # The release names some snapshots a step ahead, and keeps one optimizer.pt for all of them.
  if len(counts) > 1 or step not in (files.step, files.step - 1):
    raise UserError(
      f'{path} is of step {", ".join(map(str, sorted(counts)))}, the networks are of step {files.step}: the release '
      'keeps the optimisers of its last snapshot only. Take that one (--step), or --without optimizer.'
    )
  if step != files.step:
    logger.info(f'{path}: {step} iterations were done, though the files are named {files.step}')
  return gathered, step


def _save(folder: pathlib.Path, step: int, state: Any, config: Config) -> None:
  with contextlib.closing(Checkpoints(folder, config.log.keep_checkpoints, config)) as checkpoints:
    checkpoints.save(step, state, wait=True)


def _write_teacher(config: Config, people: int, loaded: Loaded, folder: pathlib.Path) -> None:
  """A trained teacher as `train_teacher` keeps it; its people are known by number only."""
  optimizer = make_teacher_optimizer(config, steps_per_epoch=1)
  variables = jax.tree.map(jnp.asarray, loaded.variables)
  params, batch_stats = variables['params'], variables['batch_stats']
  # BatchNorm counts the steps of its training.
  step = whole_number(loaded.extras.get('model.bn1.num_batches_tracked')) or 0
  opt_state = with_slots(jax.jit(optimizer.init)(params), step, {})
  state = TeacherState(
    jnp.asarray(step, jnp.int32), NetworkState(params, batch_stats, opt_state), jax.random.key(config.seed)
  )
  _save(folder / 'checkpoints', step, state, config)
  description = describe_teacher(config, people, None) | {'num_steps': step}
  (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + '\n')
