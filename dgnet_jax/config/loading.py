"""Configurations from config files and the command line, and as config.json in work folders."""

import ast
from collections.abc import Mapping, Sequence
import importlib.util
import json
import os
import pathlib
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dgnet_jax.config.defaults import default_config, unfrozen
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import is_like, leaves, nested, shown, suggestion, type_name, validate
from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.utils.atomic_files import write_json
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, MAX_JSON_DEPTH, read_json
from dgnet_jax.utils.paths import local_path
from dgnet_jax.utils.text import shortened

if TYPE_CHECKING:
  from ml_collections import ConfigDict

PREFIX = '--config.'
SAVED_CONFIG = 'config.json'  # in a work folder
# Fields and values that earlier versions named differently; the config.json of their runs can still be read.
FORMER_FIELDS = {
  'data.synthetic.photos_per_identity': 'data.synthetic.images_per_identity',
  'teaching.pictures': 'teaching.images',
  'log.pictures_every_steps': 'log.images_every_steps',
  'evaluation.num_truth_pairs': 'evaluation.num_ground_truth_pairs',
  'generation.num_pictures': 'generation.num_images',
}
FORMER_VALUES = {('teaching.images', 'truth'): 'ground_truth', ('generation.plan', 'photos'): 'images'}
BOOLEANS = {'true': True, 'yes': True, '1': True, 'false': False, 'no': False, '0': False}


def split_overrides(arguments: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
  """Takes `--config.FIELD=VALUE` and `--config.FIELD VALUE` out of a command line.

  Args:
    arguments: the command line without the program's name.

  Returns:
    Field names with the text of their values (the last one counts), the other arguments in order, and problems.
  """
  overrides, others, problems = {}, [], []
  remaining = list(arguments)
  while remaining:
    argument = remaining.pop(0)
    if not argument.startswith(PREFIX):
      others.append(argument)
      continue
    name, equals, text = argument.removeprefix(PREFIX).partition('=')
    if not equals:
      if not remaining or remaining[0].startswith('--'):
        problems.append(f'{name}: a value is missing, {PREFIX}{name}=VALUE')
        continue
      text = remaining.pop(0)
    overrides[name] = text
  return overrides, others, problems


def parse_value(text: str, reference: Any) -> Any:
  """Reads `text` as a value of the type of `reference`.

  Raises:
    ValueError or SyntaxError: `text` is not a value of this type.
  """
  if isinstance(reference, bool):
    if text.lower() not in BOOLEANS:
      raise ValueError(text)
    return BOOLEANS[text.lower()]
  if isinstance(reference, tuple):
    value = ast.literal_eval(text.strip().strip('()[]').rstrip(',') + ',')
    if not is_like(value, reference):
      raise ValueError(text)
    return value
  return type(reference)(text)


def apply_overrides(config: 'ConfigDict', overrides: Mapping[str, str]) -> list[str]:
  """Sets the fields that can be set, in place, and returns the problems of the others."""
  fields, references = dict(leaves(config)), dict(leaves(default_config()))
  problems = []
  for name, text in overrides.items():
    if name not in fields or name not in references:
      problems.append(f'{name}: no such field{suggestion(name, list(references))}')
      continue
    try:
      set_field(config, name, parse_value(text, references[name]))
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two from deeply nested brackets
      problems.append(f'{name}: {shown(text)} is not {type_name(references[name])}')
  return problems


def set_field(config: 'ConfigDict', name: str, value: Any) -> None:
  """Sets a field by its dotted name."""
  *sections, last = name.split('.')
  for section in sections:
    config = config[section]
  config[last] = value


def config_folder() -> pathlib.Path:
  """Returns the folder of the config files that come with the package."""
  package = pathlib.Path(__file__).resolve().parent.parent
  installed = package / 'configs'  # a wheel has them inside the package, a checkout beside it
  return installed if installed.is_dir() else package.parent / 'configs'


def find_config_file(name: str | os.PathLike[str]) -> pathlib.Path:
  """Finds a config file by its path, or by the name of one that comes with the package, like 'synthetic'.

  Raises:
    UserError: there is no such file. The message lists the names.
  """
  path = local_path(name)
  if path.is_file():
    return path
  known = {file.stem: file for file in sorted(config_folder().glob('*.py'))}
  if str(name) in known:
    return known[str(name)]
  if path.name == SAVED_CONFIG:
    raise UserError(f'{name}: no such config file; `dgnet train` writes it to the work folder of a run')
  near = suggestion(path.stem, list(known))
  raise UserError(f'{name}: no such config file{near}; the configs that come with the package are {", ".join(known)}')


def run_config_file(path: pathlib.Path) -> ModuleType:
  """Executes a Python config file and returns its module.

  Raises:
    UserError: it is not a Python file, or it fails. The message names the line.
  """
  spec = importlib.util.spec_from_file_location('dgnet_jax_run_config', path)
  if spec is None or spec.loader is None:
    raise UserError(f'{path}: a config is a Python file (.py) with a function get_config(), or a {SAVED_CONFIG}')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    raise _failed(path, error) from error
  return module


def _failed(path: pathlib.Path, error: Exception) -> UserError:
  lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
  line = f', line {lines[-1]}' if lines else ''
  return UserError(f'{path}{line}: {type(error).__name__}: {error}')


def read_config_file(name: str | os.PathLike[str]) -> 'ConfigDict':
  """Runs `get_config()` of a Python file, or reads the config.json of a work folder.

  Args:
    name: a path, or the name of a config that comes with the package.

  Raises:
    UserError: there is no such file, it fails, or it is damaged.
  """
  from ml_collections import ConfigDict  # here, so that other functions of this module work without it

  path = find_config_file(name)
  if path.suffix == '.json':
    try:
      return unfrozen(read_saved_fields(path))
    except KeyError as error:  # ConfigDict refuses the names of its methods
      raise UserError(f'{path}: not the {SAVED_CONFIG} of a work folder ({error})') from error
  module = run_config_file(path)
  try:
    config = module.get_config()
  except Exception as error:
    raise _failed(path, error) from error
  if not isinstance(config, ConfigDict):
    raise UserError(
      f'{path}: get_config() returned {type(config).__name__}, not a ConfigDict (start from default_config())'
    )
  return config


def read_saved_fields(path: pathlib.Path) -> dict[str, Any]:
  """Reads the config.json of a work folder as nested dictionaries, in the current form. Needs no ml_collections.

  Raises:
    UserError: it is damaged.
  """
  try:
    return _current(_read_json(path))
  except UserError as error:
    raise UserError(f'{path}: {error}') from error


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the values of a config.json, unchanged; raises UserError, without the path, if it is damaged."""
  try:
    values = read_json(path, MAX_DESCRIPTION_BYTES)
  except (OSError, ValueError) as error:
    raise UserError(f'damaged ({error})') from error
  known = _default_fields().keys() | FORMER_FIELDS.keys()
  if not isinstance(values, dict) or len(dict(leaves(values)).keys() & known) < len(known) / 2:
    raise UserError(f'not the {SAVED_CONFIG} of a work folder')
  return values


def _current(values: Mapping[str, Any]) -> dict[str, Any]:
  """Brings values from JSON into the current form.

  Fields and values of earlier versions are renamed, and lists become tuples. A field that is newer than the file gets
  its default, which is what the earlier version did.

  Raises:
    UserError: a field is a section, or nested too deep.
  """
  fields: dict[str, Any] = {}
  for name, value in leaves(values):
    if name.count('.') > MAX_JSON_DEPTH:  # a name with dots in it
      raise UserError(f'{shortened(name)}: nested more than {MAX_JSON_DEPTH} levels deep')
    name = FORMER_FIELDS.get(name, name)
    if isinstance(value, list):
      value = tuple(value)
    elif isinstance(value, str):
      value = FORMER_VALUES.get((name, value), value)
    fields[name] = value
  sections = {name.rpartition('.')[0] for name in fields}
  defaults = _default_fields()
  for name in defaults:
    if any(section == name or section.startswith(f'{name}.') for section in sections):
      raise UserError(f'{name}: a section, and not a value; this is not the config of a run')
  return nested(defaults | fields)


def _default_fields() -> dict[str, Any]:
  return dict(leaves(Config().to_dict()))


def load_config(name: str | os.PathLike[str], overrides: Mapping[str, str], problems: Sequence[str] = ()) -> Config:
  """Reads a config file, applies command-line overrides and validates the result.

  Args:
    name: a Python file with `get_config()`, the config.json of a work folder, or the name of a config that comes with
      the package.
    overrides: field names with the text of their values.
    problems: what is wrong with the rest of the command line, to report together with the problems here.

  Raises:
    UserError: the file cannot be read.
    ConfigError: lists everything that is wrong with the file's values and the overrides.
  """
  config = read_config_file(name)
  return validate(config, [*problems, *apply_overrides(config, overrides)])


def complete_config(values: Mapping[str, Any]) -> Config:
  """Validates the config that a run saved. Fields that are newer than the run get their defaults.

  Args:
    values: nested dictionaries, as in JSON.

  Raises:
    ConfigError: lists everything that is wrong with it.
  """
  try:
    return validate(_current(values))
  except ConfigError:
    raise
  except UserError as error:  # not a config at all
    raise ConfigError([str(error)]) from error


def save_config(config: Config, path: str | os.PathLike[str]) -> None:
  """Writes `config` as JSON, atomically."""
  write_json(path, config.to_dict())


def changed_fields(path: str | os.PathLike[str], config: Config) -> list[str]:
  """Returns the differences between a saved config and this one, or nothing if `path` does not exist.

  Args:
    path: the config.json of a work folder.
    config: the current config.

  Returns:
    A line for each field that differs, '<field>: <saved> -> <current>'.

  Raises:
    UserError: the file is damaged.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  try:
    return differences(read_json(path, MAX_DESCRIPTION_BYTES), config)
  except (OSError, ValueError, TypeError, AttributeError, UserError) as error:
    raise UserError(f'{path}: damaged ({error}); delete it to continue without a comparison') from error


def differences(saved: Mapping[str, Any], config: Config) -> list[str]:
  """Returns the differences between a config read from JSON and this one, as `changed_fields` does."""
  before, now = (dict(leaves(json.loads(json.dumps(values)))) for values in (_current(saved), config.to_dict()))
  return [
    f'{name}: {before.get(name, "absent")} -> {now.get(name, "absent")}'
    for name in sorted(before.keys() | now.keys())
    if before.get(name) != now.get(name)
  ]


def non_default_fields(config: Config) -> dict[str, Any]:
  """Returns the values that differ from the defaults, by the dotted names of their fields."""
  defaults = dict(leaves(Config().to_dict()))
  return {name: value for name, value in leaves(config.to_dict()) if value != defaults[name]}
