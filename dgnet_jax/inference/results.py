"""Where the results of a trained run are kept, so that none replaces another's."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
from typing import Any

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.config.loading import SAVED_CONFIG, read_saved_fields
from dgnet_jax.config.schema import Config, EvaluationConfig
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import read_json
from dgnet_jax.utils.paths import is_address, local_path

logger = logging.getLogger(__name__)

HASH_DIGITS = 6


def is_direct_transfer(config: Config, workdir: str | pathlib.Path) -> bool:
  """Returns True if the data of `config` are not those that the run in `workdir` was trained on.

  Raises:
    UserError: the saved config is damaged.
  """
  saved = pathlib.Path(workdir) / SAVED_CONFIG
  if not saved.exists():
    return False
  trained_on = read_saved_fields(saved)['data']
  own = (trained_on['layout'], trained_on['boxes'], _place(str(trained_on['root']), workdir))
  return own != (config.data.layout, config.data.boxes, _place(config.data.root, workdir))


def data_to_open(config: Config, workdir: str | pathlib.Path) -> DataConfig:
  """Returns `config.data`; of other data than the run's, nobody is held out, because nobody was trained on.

  Raises:
    UserError: the saved config is damaged.
  """
  return dataclasses.replace(config.data, val_identities=0) if is_direct_transfer(config, workdir) else config.data


def evaluation_folder(
  config: Config, index: DatasetIndex, workdir: str | pathlib.Path, step: int | None
) -> pathlib.Path:
  """Returns the folder of the results of an evaluation, so that those of every data set, split and step are kept.

  Args:
    config: as for `results_folder`; also `evaluation.split` is read.
    index: as for `results_folder`.
    workdir: as for `results_folder`.
    step: of the evaluated checkpoint; None: the newest one.

  Returns:
    `<workdir>/evaluation`, or a subfolder of it: on_DATA for other data, validation, step_NUMBER.
  """
  folder = split_folder(results_folder(config, index, workdir, 'evaluation'), config.evaluation.split)
  return folder if step is None else folder / f'step_{step:07d}'


def evaluation_folders(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of `evaluation_folder` that have results, those of the run's own data first."""
  folder = workdir / 'evaluation'
  data_sets = (folder, *sorted(folder.glob('on_*')))
  splits = [split for data_set in data_sets for split in (data_set, data_set / 'validation')]
  places = [place for split in splits for place in (split, *sorted(split.glob('step_*')), split / 'teacher')]
  return [place for place in places if (place / 'results.json').is_file()]


def split_folder(folder: pathlib.Path, split: str) -> pathlib.Path:
  """Returns the folder of the evaluations of a split, test or validation, among those of a data set."""
  return folder / 'validation' if split == 'validation' else folder


def results_folder(config: Config, index: DatasetIndex, workdir: str | pathlib.Path, name: str) -> pathlib.Path:
  """Returns `<workdir>/<name>`, or a subfolder of it if the data are not those that the run was trained on.

  Args:
    config: the current one; that of training is in `workdir`.
    index: index of the current data set.
    workdir: the run's work folder.
    name: name of the folder.

  Returns:
    The folder; the name of a subfolder ends in a hash of the data set's path, because folders of several data sets may
    have one name.

  Raises:
    UserError: the saved config is damaged.
  """
  folder = pathlib.Path(workdir) / name
  if not is_direct_transfer(config, workdir):
    return folder
  root = _place(config.data.root, workdir)
  base = re.sub(r'[^\w.-]', '_', os.path.basename(root))[:100]
  parts = [index.name, base, index.variant.replace(' ', '_'), _hash(root)]
  return folder / '_'.join(['on', *filter(None, parts)])


def _place(root: str, workdir: str | pathlib.Path) -> str:
  """Returns the same text for every way to write the `data.root` of one data set."""
  if is_address(root):
    return root.rstrip('/')
  return os.path.realpath(local_path(root) if root else pathlib.Path(workdir) / 'synthetic_data')


def _hash(text: str) -> str:
  return hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:HASH_DIGITS]


def settings_of(evaluation: EvaluationConfig) -> dict[str, Any]:
  """Returns the settings on which the results of an evaluation depend; newer ones only if they are not the default."""
  settings = dataclasses.asdict(evaluation)
  del settings['batch_size'], settings['every_steps']
  if settings['split'] == 'test':  # as in results of versions without this field
    del settings['split']
  for name in ('ranked_table', 'tracklets'):
    if not settings[name]:
      del settings[name]  # results of versions without this field are of the same settings
  return settings


def read_results(path: pathlib.Path) -> dict[str, Any]:
  """Reads a results.json.

  Raises:
    UserError: it is missing or damaged.
  """
  try:
    results = read_json(path)
    if not isinstance(results, dict):
      raise ValueError('not a table')
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: cannot be read ({error}); move it away, and evaluate the run again') from error
  return results


def keep_earlier(
  folder: pathlib.Path, results: Mapping[str, Any], files: Sequence[str], *, subject: Sequence[str]
) -> None:
  """Moves earlier results to a subfolder if they are of another subject than the new ones.

  A killed process can be followed by another: the file with the results is moved last.

  Args:
    folder: of the results.
    results: the new ones, with at least their subject.
    files: names of all files and folders that may belong to results, that with the results first.
    subject: keys in which results of one subject agree.
  """
  path = folder / files[0]
  if not path.exists():
    return
  text = path.read_bytes()
  try:
    earlier = read_results(path)
  except UserError:
    earlier = {}
  new = json.loads(json.dumps(results))
  if all(key in earlier and earlier[key] == new[key] for key in subject):
    return
  step, protocol = earlier.get('step'), str(earlier.get('protocol', ''))
  name = f'step_{step:07d}' if type(step) is int and 0 <= step < 10**9 else 'step_unknown'
  name += f'_{protocol}' if protocol.isidentifier() and len(protocol) < 20 else ''
  kept = folder / 'earlier' / f'{name}_{hashlib.sha256(text).hexdigest()[:HASH_DIGITS]}'
  kept.mkdir(parents=True, exist_ok=True)
  for file in reversed(files):
    if (folder / file).exists():
      if (kept / file).is_dir():  # the same results were kept before, with the same table
        shutil.rmtree(kept / file)
      os.replace(folder / file, kept / file)
  logger.info(f'earlier results: {kept}')
