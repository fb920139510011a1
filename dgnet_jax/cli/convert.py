"""`dgnet convert`: the PyTorch release's files to a work folder, and back."""

import argparse

from dgnet_jax.cli.arguments import at_least, local, run_folder, writable
from dgnet_jax.cli.command import Command, check_no_problems
from dgnet_jax.errors import ConfigError

DETAILS = 'PyTorch is not needed, and no code in a file is executed.'
EPILOG = """examples:
  dgnet convert import outputs/E0.5new --teacher models/best --workdir=runs/release \\
      --config.data.root=Market-1501-v15.09.15
  dgnet evaluate --workdir=runs/release
  dgnet convert export runs/market --out=outputs/market

`import` takes --config.FIELD=VALUE for every config field, which overrides the release's config.yaml.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  commands = parser.add_subparsers(dest='direction', required=True, metavar='{import,export}')
  importing = commands.add_parser('import', help="the release's files -> a work folder", allow_abbrev=False)
  importing.add_argument('folder', type=local, help='holds gen_*.pt, dis_*.pt, id_*.pt, optimizer.pt and config.yaml')
  importing.add_argument(
    '--teacher', type=local, metavar='PATH', help='net_last.pth (with opts.yaml beside it), or its folder'
  )
  importing.add_argument('--workdir', required=True, type=writable, metavar='FOLDER', help='work folder to create')
  importing.add_argument('--step', type=at_least(0), help='step of the snapshot (default: the newest)')
  importing.add_argument(
    '--without',
    action='append',
    default=[],
    choices=('dis', 'optimizer', 'teacher'),
    help='do without this file and initialize its content; evaluation needs a teacher, training needs all three',
  )
  importing.add_argument(
    '--drop-extra',
    action='append',
    default=[],
    metavar='PATTERN',
    help="drop arrays that have no counterpart here and whose name matches, like '*.query_conv.*'; each is reported",
  )
  exporting = commands.add_parser('export', help="a work folder -> the release's files", allow_abbrev=False)
  exporting.add_argument('workdir', type=run_folder, metavar='RUN', help='work folder of a run')
  exporting.add_argument('--out', required=True, type=writable, metavar='FOLDER', help='folder to create')
  exporting.add_argument('--step', type=at_least(0), help='step of the checkpoint (default: the newest)')


def run(options: argparse.Namespace) -> None:
  check_no_problems(options)
  if options.direction == 'import':
    from dgnet_jax.interop.release.files import find_files
    from dgnet_jax.interop.release.importer import import_release

    files = find_files(options.folder, options.teacher, step=options.step, without=options.without)
    import_release(files, options.workdir, overrides=options.overrides, drop=options.drop_extra)
    print(f'dgnet evaluate --workdir={options.workdir}')
    return
  if options.overrides:
    raise ConfigError([f'{name}: only for import' for name in options.overrides])
  from dgnet_jax.interop.release.exporter import export_release
  from dgnet_jax.storage.local_copies import fetched
  from dgnet_jax.storage.run_files import all_checkpoints

  export_release(fetched(options.workdir, all_checkpoints), options.out, step=options.step)


COMMAND = Command(
  name='convert',
  summary="convert the PyTorch release's files to a work folder, or back",
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
  fields='all',
)
