"""Configurations from files under configs/ and from the command line, and as JSON beside a run's results."""

import ast
from collections.abc import Mapping, Sequence
import importlib.util
import json
import os
import pathlib
import traceback
from typing import Any

from ml_collections import ConfigDict

from dgnet_jax.config import validation
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import ConfigError, UserError

PREFIX = '--config.'
# Fields and values that an earlier version called otherwise: the config.json of its runs is still read.
FORMER_FIELDS = {
  'data.synthetic.photos_per_identity': 'data.synthetic.images_per_identity',
  'teaching.pictures': 'teaching.images',
  'log.pictures_every_steps': 'log.images_every_steps',
  'evaluation.num_ground_truth_pairs': 'evaluation.num_ground_truth_pairs',
  'generation.num_pictures': 'generation.num_images',
}
FORMER_VALUES = {('teaching.images', 'truth'): 'ground_truth', ('generation.plan', 'photos'): 'images'}
WORDS = {'true': True, 'yes': True, '1': True, 'false': False, 'no': False, '0': False}


def split_overrides(arguments: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
  """Takes `--config.FIELD=VALUE` and `--config.FIELD VALUE` out of a command line.

  Args:
    arguments: without the program's name.

  Returns:
    Field name to text (the last one counts), the other arguments in order, and problems.
  """
  overrides, others, problems = {}, [], []
  rest = list(arguments)
  while rest:
    argument = rest.pop(0)
    if not argument.startswith(PREFIX):
      others.append(argument)
      continue
    name, equals, text = argument.removeprefix(PREFIX).partition('=')
    if not equals:
      if not rest or rest[0].startswith('--'):
        problems.append(f'{name}: a value is missing, {PREFIX}{name}=VALUE')
        continue
      text = rest.pop(0)
    overrides[name] = text
  return overrides, others, problems


def parse_value(text: str, reference: Any) -> Any:
  """Reads `text` as the type of `reference`.

  Raises:
    ValueError: it is no such thing.
  """
  if isinstance(reference, bool):
    if text.lower() not in WORDS:
      raise ValueError(text)
    return WORDS[text.lower()]
  if isinstance(reference, tuple):
    value = ast.literal_eval(text.strip().strip('()[]').rstrip(',') + ',')
    if not validation.is_like(value, reference):
      raise ValueError(text)
    return value
  return type(reference)(text)


def apply_overrides(config: ConfigDict, overrides: Mapping[str, str]) -> list[str]:
  """Sets what can be set in place; returns the problems of the rest."""
  fields = dict(validation.leaves(config))
  references = dict(validation.leaves(default_config()))
  problems = []
  for name, text in overrides.items():
    if name not in fields or name not in references:
      problems.append(f'{name}: no such field{validation.suggestion(name, list(references))}')
      continue
    try:
      value = parse_value(text, references[name])
    except (ValueError, SyntaxError):
      problems.append(f'{name}: {text!r} is not {validation.type_name(references[name])}')
      continue
    set_field(config, name, value)
  return problems


def set_field(config: ConfigDict, name: str, value: Any) -> None:
  """Sets a field by its dotted name."""
  *sections, last = name.split('.')
  for section in sections:
    config = config[section]
  config[last] = value


def read_config_file(path: str | os.PathLike[str]) -> ConfigDict:
  """Runs `get_config()` of a Python file, or reads the config.json of a work folder.

  Raises:
    UserError: there is no such file, it fails (names the line), or it is damaged.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    there = sorted(str(p) for p in path.parent.glob('*.py')) or sorted(
      str(p) for p in pathlib.Path('configs').glob('*')
    )
    raise UserError(f'{path}: no such config file{"; there are " + ", ".join(there) if there else ""}')
  if path.suffix == '.json':
    return _read_json(path)
  spec = importlib.util.spec_from_file_location('dgnet_jax_run_config', path)
  if spec is None or spec.loader is None:
    raise UserError(f'{path}: a config is a Python file (.py) with a function get_config(), or a config.json')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config()
  except Exception as error:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f', line {lines[-1]}' if lines else ''
    raise UserError(f'{path}{where}: {type(error).__name__}: {error}') from error
  if not isinstance(config, ConfigDict):
    raise UserError(
      f'{path}: get_config() returned {type(config).__name__}, not a ConfigDict (start from default_config())'
    )
  return config


def _read_json(path: pathlib.Path) -> ConfigDict:
  """The config of a work folder. A field that its version did not have yet has its default: what that version did."""
  try:
    values = json.loads(path.read_text())
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path}: damaged ({error})') from error
  defaults = dict(validation.leaves(default_config()))
  found = dict(validation.leaves(values)).keys() if isinstance(values, dict) else set()
  if len(found & defaults.keys()) < len(defaults) / 2:
    raise UserError(f'{path}: no config of a work folder')
  return ConfigDict(_current(values), type_safe=False)


def _current(values: Mapping[str, Any]) -> dict[str, Any]:
  """Values read from JSON in today's form: fields renamed, missing ones filled with their defaults, lists as tuples."""
  flat: dict[str, Any] = {}
  for name, value in validation.leaves(values):
    name = FORMER_FIELDS.get(name, name)
    flat[name] = tuple(value) if isinstance(value, list) else value
    if isinstance(value, str):
      flat[name] = FORMER_VALUES.get((name, value), value)
  for name, default in validation.leaves(default_config()):
    flat.setdefault(name, default)
  current: dict[str, Any] = {}
  for name, value in flat.items():
    *sections, last = name.split('.')
    section = current
    for part in sections:
      section = section.setdefault(part, {})
    section[last] = value
  return current


def load_config(path: str | os.PathLike[str], overrides: Mapping[str, str], problems: Sequence[str] = ()) -> Config:
  """A config file with command-line values on top, checked.

  Args:
    path: Python file with `get_config()`, or the config.json of a work folder.
    overrides: field name to text.
    problems: what was already found wrong with the command line; reported together with the rest.

  Raises:
    UserError: the file cannot be read.
    ConfigError: all that is wrong with the file's values and the overrides, at once.
  """
  config = read_config_file(path)
  return _checked(config, [*problems, *apply_overrides(config, overrides)])


def complete_config(values: Mapping[str, Any]) -> Config:
  """The config that a run saved, validated. Fields that are newer than the run get their defaults.

  Args:
    values: nested, as in JSON.

  Raises:
    ConfigError: lists everything that is wrong with it.
  """
  return _checked(ConfigDict(_current(values), type_safe=False), [])


def _checked(config: ConfigDict, problems: Sequence[str]) -> Config:
  """`config`, frozen; raises ConfigError with these problems and its own."""
  found = [*problems, *validation.problems(config, default_config())]
  if found:
    raise ConfigError(found)
  return Config.from_mapping(config)


def save_config(config: Config, path: str | os.PathLike[str]) -> None:
  """Writes `config` as JSON, aside first, so that the file is always whole."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  aside = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  aside.write_text(json.dumps(config.to_dict(), indent=2) + '\n')
  aside.replace(path)


def changed_fields(path: str | os.PathLike[str], config: Config) -> list[str]:
  """What differs between a saved config and this one, a line per field; nothing when there is no saved one.

  Raises:
    UserError: the file is damaged.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  try:
    return differences(json.loads(path.read_text()), config)
  except (ValueError, TypeError, AttributeError) as error:
    raise UserError(f'{path}: damaged ({error}); delete it to go on without the comparison') from error


def differences(saved: Mapping[str, Any], config: Config) -> list[str]:
  """What differs between a config read from JSON and this one, a line per field."""
  before = dict(validation.leaves(json.loads(json.dumps(_current(saved)))))
  now = dict(validation.leaves(json.loads(json.dumps(config.to_dict()))))
  return [
    f'{name}: {before.get(name, "absent")} -> {now.get(name, "absent")}'
    for name in sorted(before.keys() | now.keys())
    if before.get(name) != now.get(name)
  ]
