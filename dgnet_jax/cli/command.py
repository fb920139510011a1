"""A command of the command line: its help, its arguments, the config fields that it takes, and how it is run.

Modules under `cli` import nothing heavy at the top: help and mistakes need neither JAX nor NumPy.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import sys

from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.loading import PREFIX, split_overrides
from dgnet_jax.config.validation import leaves, suggestion
from dgnet_jax.errors import ConfigError
from dgnet_jax.utils.compilation_cache import disable_compilation_cache, use_compilation_cache
from dgnet_jax.utils.console import exit_on_user_error
from dgnet_jax.utils.host_memory import keep_host_memory


@dataclasses.dataclass(frozen=True)
class Command:
  """One command of `dgnet`.

  Attributes:
    name: the command's name, as typed.
    summary: a phrase for the list of commands.
    epilog: examples and notes, shown below the arguments in the help.
    add_arguments: adds the arguments to a parser.
    run: executes the command; its options have the attributes `overrides` (field names with the text of their values)
      and `problems` (what is wrong with the command line so far) if the command takes config fields.
    details: more of the description, after the summary.
    fields: the config fields that `--config.FIELD=VALUE` can set: 'all', 'data' (the fields of that section) or ''.
  """

  name: str
  summary: str
  epilog: str
  add_arguments: Callable[[argparse.ArgumentParser], None]
  run: Callable[[argparse.Namespace], None]
  details: str = ''
  fields: str = ''


def make_parser(command: Command, prog: str = '') -> argparse.ArgumentParser:
  """Returns the argument parser of a command.

  Args:
    command: the command.
    prog: name in the usage line; `dgnet NAME` by default.
  """
  description = f'{command.summary[0].upper()}{command.summary[1:]}.'
  parser = argparse.ArgumentParser(
    prog=prog or f'dgnet {command.name}',
    description=f'{description}\n\n{command.details}'.strip(),
    epilog=command.epilog,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  command.add_arguments(parser)
  parser.add_argument(
    '--no-compilation-cache',
    action='store_true',
    help='compile everything again; by default $XDG_CACHE_HOME/dgnet_jax or ~/.cache/dgnet_jax keeps compiled programs',
  )
  return parser


def parse(command: Command, arguments: Sequence[str], prog: str = '') -> argparse.Namespace:
  """Parses the arguments of a command.

  Args:
    command: the command.
    arguments: without the program's and the command's name.
    prog: as in `make_parser`.

  Raises:
    SystemExit: a required argument is missing, a value is invalid, or help was requested.
  """
  parser = make_parser(command, prog)
  if not command.fields:
    return parser.parse_args(arguments)
  overrides, others, problems = split_overrides(arguments)
  options, unknown = parser.parse_known_args(others)
  if command.fields == 'data':
    problems += [f'{name}: only fields of data can be set here' for name in overrides if not name.startswith('data.')]
  options.overrides = overrides
  fields = [name for name, _ in leaves(default_config()) if command.fields == 'all' or name.startswith('data.')]
  options.problems = problems + _unknown_arguments(
    [*_flags(parser, options), *(PREFIX + name for name in fields)], unknown
  )
  return options


def _unknown_arguments(known: Sequence[str], unknown: Sequence[str]) -> list[str]:
  """Returns a line for each unknown argument, with similar ones that the command knows."""
  known = list(dict.fromkeys(known))
  problems = []
  for argument in unknown:
    name = argument.split('=')[0]
    exact = f'{PREFIX}{name.lstrip("-")}'
    if name in known:  # argparse leaves everything after the name of a subcommand to it
      problems.append(f'{argument}: must be the first argument')
    else:
      near = suggestion(name.lstrip('-'), [exact] if exact in known else known)
      problems.append(f'{argument}: unknown argument{near}')
  return problems


def _flags(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[str]:
  """Yields the flags of a parser and of the subparsers that were chosen."""
  for action in parser._actions:
    yield from action.option_strings
    if isinstance(action, argparse._SubParsersAction):
      yield from _flags(action.choices[getattr(options, action.dest)], options)


def execute(command: Command, arguments: Sequence[str], prog: str = '') -> None:
  """Parses the arguments of a command and runs it.

  Raises:
    SystemExit: with status 2 after a user error, 130 after an interruption.
  """
  with exit_on_user_error():
    options = parse(command, arguments, prog)
    # Before a command imports JAX, which reads the settings then.
    keep_host_memory()
    if options.no_compilation_cache:
      disable_compilation_cache()
    else:
      use_compilation_cache()
    command.run(options)


def main(command: Command, prog: str) -> None:
  """Entry point of `python -m tools.NAME` and `python -m dgnet_jax.main`."""
  execute(command, sys.argv[1:], prog)


def check_no_problems(options: argparse.Namespace) -> None:
  """Raises ConfigError if something is wrong with the command line."""
  if options.problems:
    raise ConfigError(options.problems)
