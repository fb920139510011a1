"""Trains, evaluates and draws: the command line of the package.

Everything heavy is imported after the command line and the configuration have been found right.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from dgnet_jax import config_file
from dgnet_jax.config import MissingSplit, UserError
from dgnet_jax.config_rules import leaves, suggestion
from dgnet_jax.console import copied_to, told_plainly

MODES = {
  'train': 'the whole job: data, teacher, DG-Net, evaluation and pictures; goes on where it stopped',
  'teacher': 'data and teacher only',
  'evaluate': 'rank-1/5/10 and mAP of the trained networks, with ranked lists',
  'generate': 'pictures of the trained networks',
}
EXAMPLE = """
example:
  python -m dgnet_jax.main --config=configs/synthetic.py --workdir=runs/synthetic
  python -m dgnet_jax.main --config=configs/market.py --workdir=runs/market \\
      --config.data.root=Market-1501-v15.09.15 --config.batch_size=4

Any field of the config can be set: --config.FIELD=VALUE. dgnet_jax/config.py says what each is.
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
  overrides, others, problems = config_file.split_overrides(arguments)
  options, unknown = _parser().parse_known_args(others)
  fields = [name for name, _ in leaves(config_file.default_config())]
  for argument in unknown:
    name = argument.lstrip('-').split('=')[0]
    near = [name] if name in fields else fields
    hint = suggestion(name, [f'{config_file.PREFIX}{field}' for field in near])
    problems.append(f'{argument}: no such flag{hint}')
  return options, config_file.load_config(options.config, overrides, problems)


def run(options: argparse.Namespace, config: Any) -> None:
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
  with copied_to(workdir / log_name), told_plainly():
    print(f'mode {options.mode}, config {options.config}, results in {workdir}')
    _note_config(workdir, config, write=options.mode in ('train', 'teacher') and jax.process_index() == 0)
    _dispatch(options.mode, config, workdir)


def _note_config(workdir: pathlib.Path, config: Any, *, write: bool) -> None:
  """Says what differs from the config that the folder was made with, and remembers the new one."""
  path = workdir / 'config.json'
  for change in config_file.changed_fields(path, config):
    print(f'config differs from the last run here: {change}')
  if write:
    config_file.save_config(config, path)


def _dispatch(mode: str, config: Any, workdir: pathlib.Path) -> None:
  if mode == 'teacher':
    from dgnet_jax.data.open import open_dataset
    from dgnet_jax.interop.pretrained import check_pretrained
    from dgnet_jax.train_teacher import train_teacher

    check_pretrained(config, workdir)
    train_teacher(config, open_dataset(config, workdir, verify=True), workdir)
  if mode == 'train':
    from dgnet_jax.train import train

    train(config, workdir)
  try:
    if mode in ('train', 'evaluate'):
      from dgnet_jax.evaluate import evaluate

      evaluate(config, workdir)
    if mode == 'generate' or (mode == 'train' and config.joint):
      from dgnet_jax.generate import generate

      generate(config, workdir)
  except MissingSplit as error:
    if mode != 'train':
      raise
    print(f'nothing to evaluate: {error}')  # training is done, and that was the job


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's, 130 after an interruption."""
  with told_plainly():
    options, config = parse(sys.argv[1:] if arguments is None else arguments)
    run(options, config)


if __name__ == '__main__':
  main()
