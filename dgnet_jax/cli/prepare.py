"""`dgnet prepare`: converts data sets, and splits or merges them."""

import argparse

from dgnet_jax.cli.arguments import at_least, data_fields, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.data.layouts import LAYOUTS
from dgnet_jax.errors import UserError
from dgnet_jax.utils.extras import install_command

FILES = ('copy', 'hardlink', 'symlink')
DETAILS = 'Downloads nothing, and does not change the data set.'
EPILOG = """examples:
  dgnet prepare to-release Market-1501-v15.09.15 --out=market
  dgnet prepare from-release market --out=Market-1501-again --files=hardlink
  dgnet prepare to-tfds Market-1501-v15.09.15 --out=tfds
  dgnet prepare split Market-1501-v15.09.15 --val-identities=100 --out=market_val.csv
  dgnet prepare merge Market-1501-v15.09.15 msmt17=MSMT17_V1 --out=joint.csv

DATA is the folder of a data set, or a .csv file. Its layout is detected; LAYOUT=DATA sets it. Fields of config.data
can be set with --config.data.FIELD=VALUE. To train on a table, set --config.data.layout=csv --config.data.root=FILE.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  conversions = parser.add_subparsers(dest='conversion', required=True, metavar='CONVERSION')

  def add(name: str, summary: str, out: str, out_help: str) -> argparse.ArgumentParser:
    conversion = conversions.add_parser(name, help=summary, allow_abbrev=False)
    conversion.add_argument('data', metavar='DATA', nargs='+' if name == 'merge' else None)
    conversion.add_argument('--out', required=True, metavar=out, type=writable, help=out_help)
    return conversion

  for name, summary in (
    ('to-release', "any data set -> the release's folders, pytorch/train_all/0002/..."),
    ('from-release', "the release's folders -> the layout of Market-1501"),
  ):
    folders = add(name, summary, 'FOLDER', 'folder to create')
    folders.add_argument('--files', choices=FILES, default='copy', help='how files are placed (default: copy)')
  add('to-tfds', 'any data set -> a few record files (TensorFlow Datasets), for pods', 'FOLDER', 'folder of TFDS data')
  split = add('split', 'a table that holds out training identities, for model selection', 'FILE.csv', 'file to write')
  split.add_argument('--val-identities', type=int, required=True, help='identities to hold out; the paper: 100 of 751')
  split.add_argument('--seed', type=at_least(0), default=0, help='selects the identities (default: 0)')
  add('merge', 'a table of several data sets, for training on all of them', 'FILE.csv', 'file to write')


def _layout_and_root(text: str, layout: str = '') -> tuple[str, str]:
  """Returns the parts of LAYOUT=DATA; `layout` if there is none."""
  name, equals, root = text.partition('=')
  return (name, root) if equals and name in LAYOUTS else (layout, text)


def run(options: argparse.Namespace) -> None:
  fields = data_fields(options)
  from dgnet_jax.data import prepare
  from dgnet_jax.data.registry import read_layout

  default_layout = 'release' if options.conversion == 'from-release' else ''
  data_sets = options.data if options.conversion == 'merge' else [options.data]
  layouts_and_roots = [_layout_and_root(text, default_layout) for text in data_sets]
  indices = [read_layout(root, layout, **fields) for layout, root in layouts_and_roots]
  if options.conversion == 'to-release':
    prepare.to_release(indices[0], options.out, how=options.files)
  elif options.conversion == 'from-release':
    prepare.to_market1501(indices[0], options.out, how=options.files)
  elif options.conversion == 'split':
    prepare.split_validation(indices[0], options.out, val_identities=options.val_identities, seed=options.seed)
  elif options.conversion == 'merge':
    prepare.merge(indices, options.out)
  else:
    try:
      from dgnet_jax.data.tfds_builders import prepare_records
    except ImportError as error:
      command = install_command('tfdata', 'tfds')
      raise UserError(f'to-tfds needs TensorFlow Datasets: {command} ({error})') from error
    folder = prepare_records(indices[0], options.out)
    print(f'--config.data.layout=tfds --config.data.root={folder} --config.data.loader=threads')


COMMAND = Command(
  name='prepare',
  summary='convert a data set to another layout, hold out a validation part, or merge data sets',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
  fields='data',
)
