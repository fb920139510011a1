"""Brings data sets into other forms. Nothing is downloaded, and no data set is changed."""

import argparse
from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from dgnet_jax.cli.data_fields import data_fields
from dgnet_jax.config import loading
from dgnet_jax.data.layouts import LAYOUTS
from dgnet_jax.errors import UserError
from dgnet_jax.utils.console import exit_on_user_error

FILES = ('copy', 'hardlink', 'symlink')
EXAMPLE = """
examples:
  python -m tools.prepare to-release Market-1501-v15.09.15 --out=market
  python -m tools.prepare from-release market --out=Market-1501-again --files=hardlink
  python -m tools.prepare to-tfds Market-1501-v15.09.15 --out=tfds
  python -m tools.prepare split Market-1501-v15.09.15 --val-identities=100 --out=market_val.csv
  python -m tools.prepare merge Market-1501-v15.09.15 msmt17=MSMT17_V1 --out=joint.csv

DATA is the folder of a data set (or a .csv file), whose layout is recognised; LAYOUT=DATA names it. Fields of
config.data can be set: --config.data.FIELD=VALUE. A table is used with --config.data.layout=csv
--config.data.root=FILE.csv
"""


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m tools.prepare',
    description=__doc__,
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(dest='command', required=True)
  for name, what in (
    ('to-release', "any data set -> the release's folders, pytorch/train_all/0002/..."),
    ('from-release', "the release's folders -> Market-1501's layout"),
  ):
    command = commands.add_parser(name, help=what)
    command.add_argument('data', metavar='DATA')
    command.add_argument('--out', required=True, metavar='FOLDER', type=pathlib.Path, help='to make')
    command.add_argument('--files', choices=FILES, default='copy', help='how they come there (default: copy)')
  records = commands.add_parser('to-tfds', help='records in a few files (TensorFlow Datasets, ArrayRecord), for pods')
  records.add_argument('data', metavar='DATA')
  records.add_argument('--out', required=True, metavar='FOLDER', type=pathlib.Path, help='of TFDS data sets')
  split = commands.add_parser('split', help='a table that keeps some training people out, to choose models by')
  split.add_argument('data', metavar='DATA')
  split.add_argument('--out', required=True, metavar='FILE.csv', type=pathlib.Path, help='to write')
  split.add_argument('--val-identities', type=int, required=True, help='people to keep out; the paper: 100 of 751')
  split.add_argument('--seed', type=int, default=0, help='which people (default: 0)')
  merge = commands.add_parser('merge', help='a table of several data sets, for training on all of them')
  merge.add_argument('data', metavar='DATA', nargs='+')
  merge.add_argument('--out', required=True, metavar='FILE.csv', type=pathlib.Path, help='to write')
  return parser


def _layout_and_root(text: str, layout: str = '') -> tuple[str, str]:
  """The parts of LAYOUT=DATA; `layout` where there is none."""
  name, equals, root = text.partition('=')
  return (name, root) if equals and name in LAYOUTS else (layout, text)


def prepare(options: argparse.Namespace, fields: dict[str, object]) -> None:
  """Does what `options.command` says."""
  from dgnet_jax.data import prepare as jobs  # late: help needs no numpy
  from dgnet_jax.data.registry import read_layout

  given = options.data if options.command == 'merge' else [options.data]
  indices = []
  for text in given:
    layout, root = _layout_and_root(text, 'release' if options.command == 'from-release' else '')
    indices.append(read_layout(root, layout, **fields))
  if options.command == 'to-release':
    jobs.to_release(indices[0], options.out, how=options.files)
  elif options.command == 'from-release':
    jobs.to_market1501(indices[0], options.out, how=options.files)
  elif options.command == 'to-tfds':
    _to_tfds(indices[0], options.out)
  elif options.command == 'split':
    jobs.split_validation(indices[0], options.out, val_identities=options.val_identities, seed=options.seed)
  else:
    jobs.merge(indices, options.out)


def _to_tfds(index: Any, out: pathlib.Path) -> None:
  try:
    from dgnet_jax.data.tfds_builders import prepare_records  # late: it imports TensorFlow
  except ImportError as error:
    raise UserError(f'to-tfds needs TensorFlow Datasets: install dgnet_jax[tfdata,tfds] ({error})') from error
  folder = prepare_records(index, out)
  print(f'--config.data.layout=tfds --config.data.root={folder} --config.data.loader=threads')


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's."""
  overrides, others, problems = loading.split_overrides(sys.argv[1:] if arguments is None else arguments)
  options = _parser().parse_args(others)
  with exit_on_user_error():
    prepare(options, data_fields(overrides, problems))


if __name__ == '__main__':
  main()
