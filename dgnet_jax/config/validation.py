"""Validates a configuration and freezes it. All problems are found at once, as lines '<field>: <what is wrong>'."""

from collections.abc import Iterator, Mapping, Sequence
import difflib
from typing import Any

from dgnet_jax.config import data_rules as data_rules  # they register their rules
from dgnet_jax.config import rules as rules
from dgnet_jax.config.combinations import COMBINATIONS
from dgnet_jax.config.ranges import AT_LEAST_TWO, AT_MOST, CHOICES, FRACTIONS, POSITIVE, REFUSED
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import ConfigError
from dgnet_jax.utils.text import printable, shortened

MAX_WHOLE = 2**31 - 1  # JAX computes with i32
MAX_SEED = 2**32 - 1  # JAX ignores the bits above
MAX_REAL = 3.4e38  # JAX computes with f32
MAX_LINE = 500  # characters of a problem in a message; names and values may be longer
MAX_UNKNOWN = 20  # unknown fields that are named; looking for similar names takes time


def leaves(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields the dotted name and the value of every field that is not a section."""
  for name, value in config.items():
    if hasattr(value, 'items'):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Inverts `leaves`: makes nested dictionaries of fields with dotted names.

  Raises:
    ConfigError: a name is both a field and a section.
  """
  values: dict[str, Any] = {}
  for name, value in fields.items():
    *sections, last = name.split('.')
    section = values
    for part in sections:
      section = section.setdefault(part, {})
      if not isinstance(section, dict):
        raise ConfigError([f'{name}: {part} is a field, not a section'])
    section[last] = value
  return values


def with_fields(config: Config, fields: Mapping[str, Any]) -> Config:
  """Returns a config with other values of some fields, by their dotted names; they are not validated.

  Raises:
    AttributeError: there is no such field.
  """
  return Config.from_mapping(nested({**dict(leaves(config.to_dict())), **fields}))


def suggestion(name: str, known: Sequence[str]) -> str:
  """Returns '; did you mean ...?' for a misspelled or misplaced field, or '' if no known name is similar."""
  last = name.rsplit('.', 1)[-1]
  similar = [field for field in known if field.rsplit('.', 1)[-1] == last]
  similar = similar or difflib.get_close_matches(name, known, n=2, cutoff=0.75)
  if not similar:
    ends = {field.rsplit('.', 1)[-1]: field for field in known}
    similar = [ends[end] for end in difflib.get_close_matches(last, list(ends), n=2, cutoff=0.75)]
  return f'; did you mean {" or ".join(similar[:3])}?' if similar else ''


def is_like(value: Any, reference: Any) -> bool:
  """Returns True if `value` has a type that is accepted where the default is `reference`.

  Whole numbers are accepted for floats, and lists for tuples.
  """
  if isinstance(reference, tuple):
    return isinstance(value, tuple | list) and all(is_like(item, reference[0]) for item in value)
  if isinstance(reference, float):
    return isinstance(value, int | float) and not isinstance(value, bool)
  return type(value) is type(reference)


def shown(value: Any) -> str:
  """Returns `value` as it is written in Python, cut if it is long."""
  try:
    return shortened(repr(value))
  except ValueError:  # Python does not write integers of more than 4,300 digits
    return 'a number of more than 4,300 digits'


def type_name(reference: Any) -> str:
  """Describes the values that a field with the default `reference` accepts."""
  if isinstance(reference, tuple):
    numbers = 'numbers' if isinstance(reference[0], float) else 'whole numbers'
    return f'{numbers} like {",".join(map(str, reference))}'
  return {int: 'a whole number', float: 'a number', bool: 'True or False', str: 'a string'}[type(reference)]


def validate(config: Mapping[str, Any], earlier_problems: Sequence[str] = ()) -> Config:
  """Checks types, ranges and combinations, and freezes the configuration. Reads no file.

  Args:
    config: a ConfigDict or nested dictionary with the fields of `Config`.
    earlier_problems: lines to report together with those of `config`.

  Returns:
    The same values, frozen and typed.

  Raises:
    ConfigError: lists the earlier problems and every unknown or missing field, wrong type, value out of range and
      invalid combination. A combination is skipped if one of its fields is invalid by itself.
  """
  lines = [*earlier_problems, *problems(config)]
  if lines:
    raise ConfigError(lines)
  return Config.from_mapping(config)


def problems(config: Mapping[str, Any]) -> list[str]:
  """Returns everything that is wrong with a ConfigDict or nested dictionary, as lines '<field>: <what is wrong>'."""
  fields, defaults = dict(leaves(config)), dict(leaves(Config().to_dict()))
  wrong = _type_problems(fields, defaults)
  for name, default in defaults.items():
    if name in fields and name not in wrong and (problem := _range_problem(name, fields[name], default)):
      wrong[name] = problem
  valid = {name: default if name in wrong else fields[name] for name, default in defaults.items()}
  frozen = Config.from_mapping(nested(valid))
  for read, rule in COMBINATIONS:
    # A rule that reads an invalid field would judge its default.
    if not any(name == field or name.startswith(f'{field}.') for name in wrong for field in read):
      if problem := rule(frozen):
        wrong[read[0]] = problem
  return [printable(shortened(f'{name}: {problem}', MAX_LINE)) for name, problem in wrong.items()]


def _type_problems(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
  """Returns unknown, missing and wrongly typed fields."""
  unknown = [name for name in fields if name not in defaults]
  wrong = {name: f'no such field{suggestion(name, list(defaults))}' for name in unknown[:MAX_UNKNOWN]}
  if len(unknown) > MAX_UNKNOWN:
    wrong[unknown[MAX_UNKNOWN]] = f'no such field, like {len(unknown) - MAX_UNKNOWN - 1} more'
  wrong |= {name: 'missing' for name in defaults if name not in fields}
  for name, reference in defaults.items():
    if name in fields and not is_like(fields[name], reference):
      wrong[name] = f'{shown(fields[name])} is not {type_name(reference)}'
    elif name in fields and name.endswith('_hw') and len(fields[name]) != 2:
      wrong[name] = f'{shown(fields[name])} is not (height, width)'
  return wrong


def _range_problem(name: str, value: Any, default: Any) -> str:
  """Returns what is wrong with a well-typed value by itself, or ''."""
  if name in CHOICES and value not in CHOICES[name]:
    reason = REFUSED.get((name, value))
    return f'{shown(value)} must be one of {", ".join(map(str, CHOICES[name]))}{f": {reason}" if reason else ""}'
  if isinstance(value, bool | str):
    return ''
  numbers = value if isinstance(value, tuple | list) else (value,)
  is_whole = isinstance(default[0] if isinstance(default, tuple) else default, int)
  if not numbers:
    return 'must not be empty'
  largest = AT_MOST.get(name, MAX_SEED if name.endswith('seed') else MAX_WHOLE)
  if is_whole and max(numbers) > largest:
    return f'{shown(value)} must be at most {largest}'
  if not all(abs(number) <= MAX_REAL for number in numbers):  # also of NaN
    return f'{shown(value)} must be finite, also in float32'
  minimum = 2 if name in AT_LEAST_TWO else 0
  if min(numbers) < minimum or (name in POSITIVE and min(numbers) == 0):
    return f'{shown(value)} must be {"above 0" if name in POSITIVE else f"at least {minimum}"}'
  if (name.endswith('_prob') or name in FRACTIONS) and value > 1:
    return f'{value} must be in [0, 1]'
  if name.endswith(('dropout', 'momentum', 'label_smoothing', 'circle_margin')) and value >= 1:
    return f'{value} must be below 1'
  return ''
