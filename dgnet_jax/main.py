"""Trains, evaluates and draws: the command line of the package.

Everything heavy is imported after the command line and the configuration have been found right.
"""

import argparse
from collections.abc import Sequence
import logging
import pathlib
import sys
from typing import Any

from dgnet_jax.config import loading
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves, suggestion
from dgnet_jax.errors import MissingSplit, UserError
from dgnet_jax.utils.console import exit_on_user_error, logged_to

logger = logging.getLogger(__name__)

MODES = {
  'train': 'the whole job: data, teacher, DG-Net, evaluation and images; goes on where it stopped',
  'teacher': 'data and teacher only',
  'evaluate': 'rank-1/5/10 and mAP of the trained networks, with ranked lists',
  'generate': 'images of the trained networks',
}
EXAMPLE = """
example:
  python -m dgnet_jax.main --config=configs/synthetic.py --workdir=runs/synthetic
  python -m dgnet_jax.main --config=configs/market.py --workdir=runs/market \\
      --config.data.root=Market-1501-v15.09.15 --config.batch_size=4

Any field of the config can be set: --config.FIELD=VALUE. dgnet_jax/config/defaults.py says what each is.
"""


def _processes(text: str) -> dict[str, Any]:
  """Arguments of jax.distributed.initialize from 'HOST:PORT,COUNT,INDEX'."""
  address, count, index = text.split(',')
  host, port = address.rsplit(':', 1)
  if not host or not 0 < int(port) < 2**16 or not 0 <= int(index) < int(count):
    raise ValueError(text)
  return {'coordinator_address': address, 'num_processes': int(count), 'process_id': int(index)}


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m dgnet_jax.main',
    description='DG-Net: person re-identification and person image generation, learned together.',
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--config', required=True, metavar='FILE', help='a file of configs/')
  parser.add_argument('--workdir', required=True, metavar='FOLDER', help='gets all that the run writes')
  modes = '; '.join(f'{name}: {what}' for name, what in MODES.items())
  parser.add_argument('--mode', choices=MODES, default='train', help=f'{modes} (default: train)')
  parser.add_argument(
    '--distributed',
    nargs='?',
    const={},
    default=None,
    type=_processes,
    metavar='HOST:PORT,COUNT,INDEX',
    help='one of several processes with one workdir, on a shared file system. On TPU pods, Slurm and Open MPI they '
    'find each other; elsewhere say where the first listens, how many there are, and which this is, from 0',
  )
  return parser


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Any]:
  """Reads a command line and the config it names.

  Args:
    arguments: without the program's name.

  Returns:
    Options (config, workdir, mode, distributed), and the checked ConfigDict.

  Raises:
    UserError: all that is wrong with flags, fields and values.
    SystemExit: a flag of the parser itself is missing or has no such value, or help was asked for.
  """
  overrides, others, problems = loading.split_overrides(arguments)
  options, unknown = _parser().parse_known_args(others)
  fields = [name for name, _ in leaves(loading.default_config())]
  for argument in unknown:
    name = argument.lstrip('-').split('=')[0]
    near = [name] if name in fields else fields
    hint = suggestion(name, [f'{loading.PREFIX}{field}' for field in near])
    problems.append(f'{argument}: no such flag{hint}')
  return options, loading.load_config(options.config, overrides, problems)


def run(options: argparse.Namespace, config: Config) -> None:
  """Does what `options.mode` says.

  Args:
    options: of `parse`.
    config: validated.
  """
  import jax  # late: a wrong config is told before it

  if options.distributed is not None:
    try:
      jax.distributed.initialize(**options.distributed)
    except (ValueError, RuntimeError) as error:
      raise UserError(f'--distributed: the processes do not find each other ({error})') from error
  workdir = pathlib.Path(options.workdir)
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
  log_name = f'log.{jax.process_index()}.txt' if jax.process_index() else 'log.txt'
  with logged_to(workdir / log_name), exit_on_user_error():
    logger.info(f'mode {options.mode}, config {options.config}, results in {workdir}')
    _note_config(workdir, config, write=options.mode in ('train', 'teacher') and jax.process_index() == 0)
    _dispatch(options.mode, config, workdir)


def _note_config(workdir: pathlib.Path, config: Config, *, write: bool) -> None:
  """Says what differs from the config that the folder was made with, and remembers the new one."""
  path = workdir / 'config.json'
  for change in loading.changed_fields(path, config):
    logger.info(f'config differs from the last run here: {change}')
  if write:
    loading.save_config(config, path)


def _dispatch(mode: str, config: Config, workdir: pathlib.Path) -> None:
  if mode == 'teacher':
    from dgnet_jax.data.dataset import open_dataset
    from dgnet_jax.interop.pretrained import check_pretrained
    from dgnet_jax.training.teacher_loop import train_teacher

    check_pretrained(config, workdir)
    train_teacher(config, open_dataset(config, workdir, verify=True), workdir)
  if mode == 'train':
    from dgnet_jax.training.loop import train

    train(config, workdir)
  try:
    if mode in ('train', 'evaluate'):
      from dgnet_jax.reports.evaluation import evaluate

      evaluate(config, workdir)
    if mode == 'generate' or (mode == 'train' and config.joint):
      from dgnet_jax.generation.sheets import generate

      generate(config, workdir)
  except MissingSplit as error:
    if mode != 'train':
      raise
    logger.warning(f'nothing to evaluate: {error}')  # training is done, and that was the job


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's, 130 after an interruption."""
  with exit_on_user_error():
    options, config = parse(sys.argv[1:] if arguments is None else arguments)
    run(options, config)


if __name__ == '__main__':
  main()
