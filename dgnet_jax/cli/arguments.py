"""Arguments that several commands have."""

import argparse
from collections.abc import Callable
import pathlib

from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.loading import PREFIX, SAVED_CONFIG, apply_overrides, load_config
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.storage.local_copies import fetched_file
from dgnet_jax.storage.remote_folder import RemoteFolder
from dgnet_jax.utils.extras import require_pyarrow
from dgnet_jax.utils.paths import check_writable, is_address, local_path
from dgnet_jax.utils.text import shortened

CONFIG_HELP = (
  f'a config by name (like synthetic or market) or path; default: {SAVED_CONFIG} of the work folder. '
  'dgnet_jax/config/schema.py documents the fields'
)

MAX_DIGITS = 18  # of a whole number, so that it fits into 64 bits


def at_least(minimum: int) -> Callable[[str], int]:
  """Returns an argparse type: whole numbers from `minimum` upwards."""

  def parse(text: str) -> int:
    if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) < minimum:
      digits = f' with at most {MAX_DIGITS} digits' if len(text) > MAX_DIGITS else ''
      raise argparse.ArgumentTypeError(f'{shortened(text)!r} must be a whole number of at least {minimum}{digits}')
    return int(text)

  return parse


positive = at_least(1)


def local(text: str) -> pathlib.Path:
  """An argparse type: a file or folder of this machine."""
  try:
    return local_path(text)
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def run_folder(text: str) -> pathlib.Path | str:
  """An argparse type: the work folder of a run, on this machine or as the address of one on object storage."""
  try:
    return RemoteFolder(text).address if is_address(text) else local_path(text)
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def writable(text: str) -> pathlib.Path:
  """An argparse type: a file or folder to write, which is checked before anything else is done."""
  try:
    return check_writable(text)
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def size_hw(text: str) -> tuple[int, int]:
  """An argparse type: HEIGHTxWIDTH."""
  height, x, width = text.partition('x')
  if not (x and height.isdecimal() and width.isdecimal() and max(len(height), len(width)) <= MAX_DIGITS):
    raise argparse.ArgumentTypeError(f'{shortened(text)!r} must be HEIGHTxWIDTH, like 256x128')
  return int(height), int(width)


def _step(text: str) -> int | str:
  """An argparse type: the number of a step, or 'best'."""
  if text == 'best' or (text.isdecimal() and len(text) <= MAX_DIGITS):
    return text if text == 'best' else int(text)
  raise argparse.ArgumentTypeError(f'{shortened(text)!r} must be the step of a checkpoint, or best')


def add_step(parser: argparse.ArgumentParser) -> None:
  """Adds the choice of a run's checkpoint, `options.step`."""
  parser.add_argument(
    '--step',
    type=_step,
    metavar='N|best',
    help='use the checkpoint of this step, or the one with the best mAP during training (default: the newest)',
  )


def add_batch_size(parser: argparse.ArgumentParser, default: int) -> None:
  parser.add_argument(
    '--batch-size', type=positive, default=default, help='images processed at a time (default: %(default)s)'
  )


def read_config(options: argparse.Namespace) -> Config:
  """Reads the config of a command with `--config` and `--workdir`, and applies the overrides.

  Returns:
    The config that `--config` names, else the one that the work folder's run was started with.

  Raises:
    UserError: there is no config, it cannot be read, or it wants a table in Parquet files without pyarrow.
    ConfigError: lists everything that is wrong with the command line and the config.
  """
  name = options.config
  if not name:
    name = fetched_file(options.workdir, SAVED_CONFIG)
    if not name.is_file():
      problem = f'--config: name a config, like --config=synthetic; there is no {SAVED_CONFIG} in {options.workdir}'
      raise ConfigError([*options.problems, problem])
  config = load_config(name, options.overrides, options.problems)
  if config.evaluation.ranked_table:
    require_pyarrow('evaluation.ranked_table', 'or set it to 0')
  if config.generation.manifest_table:
    require_pyarrow('generation.manifest_table', 'or set it to False')
  return config


def data_fields(options: argparse.Namespace) -> dict[str, object]:
  """Returns the fields of the section `data` that the command line sets, by their names in it.

  Raises:
    ConfigError: lists everything that is wrong with the command line.
  """
  config = default_config()
  problems = [*options.problems]
  # Names that are not fields of `data` have been reported already.
  overrides = {name: text for name, text in options.overrides.items() if name.startswith('data.')}
  named = [name for name in ('data.root', 'data.layout') if overrides.pop(name, None) is not None]
  problems += [f'{PREFIX}{name}: the command names its data itself; see --help' for name in named]
  problems += apply_overrides(config, overrides)
  if problems:
    raise ConfigError(problems)
  names = [name.removeprefix('data.') for name in overrides]
  return {name: config.data[name] for name in names}
