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

from dgnet_jax import config_rules
from dgnet_jax.config import ConfigError, UserError, default_config

PREFIX = '--config.'
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
    if not config_rules.is_like(value, reference):
      raise ValueError(text)
    return value
  return type(reference)(text)


def apply_overrides(config: ConfigDict, overrides: Mapping[str, str]) -> list[str]:
  """Sets what can be set in place; returns the problems of the rest."""
  fields = dict(config_rules.leaves(config))
  references = dict(config_rules.leaves(default_config()))
  problems = []
  for name, text in overrides.items():
    if name not in fields or name not in references:
      problems.append(f'{name}: no such field{config_rules.suggestion(name, list(references))}')
      continue
    try:
      value = parse_value(text, references[name])
    except (ValueError, SyntaxError):
      problems.append(f'{name}: {text!r} is not {config_rules.type_name(references[name])}')
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
  defaults = dict(config_rules.leaves(default_config()))
  found = dict(config_rules.leaves(values)).keys() if isinstance(values, dict) else set()
  if len(found & defaults.keys()) < len(defaults) / 2:
    raise UserError(f'{path}: no config of a work folder')
  # JSON has no tuples, and a ConfigDict keeps a field a list that was one.
  return ConfigDict(_with_tuples(_filled(values, default_config().to_dict())), type_safe=False)


def _with_tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {name: _with_tuples(item) for name, item in value.items()}
  return tuple(value) if isinstance(value, list) else value


def load_config(path: str | os.PathLike[str], overrides: Mapping[str, str], problems: Sequence[str] = ()) -> ConfigDict:
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


def complete_config(values: Mapping[str, Any]) -> ConfigDict:
  """The config that a run saved, checked; fields that are younger than the run get their defaults.

  Args:
    values: nested, as in JSON.

  Raises:
    ConfigError: all that is wrong with it, at once.
  """
  return _checked(ConfigDict(_with_tuples(_filled(values, default_config().to_dict())), type_safe=False), [])


def _filled(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
  """`values`, and at every depth the defaults of what is not in them."""
  filled = {**defaults, **values}
  for name, default in defaults.items():
    if isinstance(default, Mapping) and isinstance(filled[name], Mapping):
      filled[name] = _filled(filled[name], default)
  return filled


def _checked(config: ConfigDict, problems: Sequence[str]) -> ConfigDict:
  """`config` with values of the defaults' types; raises ConfigError with these problems and its own."""
  found = [*problems, *config_rules.problems(config, default_config())]
  if found:
    raise ConfigError(found)
  values = dict(config_rules.leaves(config))
  for name, reference in config_rules.leaves(default_config()):
    set_field(config, name, type(reference)(values[name]))  # a list becomes a tuple, 1 becomes 1.0
  return config


def save_config(config: ConfigDict, path: str | os.PathLike[str]) -> None:
  """Writes `config` as JSON, aside first, so that the file is always whole."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  aside = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  aside.write_text(json.dumps(config.to_dict(), indent=2) + '\n')
  aside.replace(path)


def changed_fields(path: str | os.PathLike[str], config: ConfigDict) -> list[str]:
  """What differs between a saved config and this one, a line per field; nothing when there is no saved one.

  Raises:
    UserError: the file is damaged.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  try:
    return differences(_filled(json.loads(path.read_text()), default_config().to_dict()), config)
  except (ValueError, TypeError) as error:
    raise UserError(f'{path}: damaged ({error}); delete it to go on without the comparison') from error


def differences(saved: Mapping[str, Any], config: ConfigDict) -> list[str]:
  """What differs between a config read from JSON and this one, a line per field."""
  before = dict(config_rules.leaves(saved))
  now = dict(config_rules.leaves(json.loads(json.dumps(config.to_dict()))))
  return [
    f'{name}: {before.get(name, "absent")} -> {now.get(name, "absent")}'
    for name in sorted(before.keys() | now.keys())
    if before.get(name) != now.get(name)
  ]
