"""Brings the PyTorch release's files in, and takes ours out to it. torch is not needed; no file is executed."""

import argparse
from collections.abc import Sequence
import sys

from dgnet_jax.config import loading
from dgnet_jax.errors import ConfigError
from dgnet_jax.utils.console import exit_on_user_error

EXAMPLE = """
examples:
  python -m tools.convert_torch import outputs/E0.5new --teacher models/best --workdir=runs/release \\
      --config.data.root=Market-1501-v15.09.15
  python -m dgnet_jax.main --config=runs/release/config.json --workdir=runs/release --mode=evaluate
  python -m tools.convert_torch export runs/market --out=outputs/market

Any field of the config can be set while importing: --config.FIELD=VALUE, over what config.yaml says.
"""


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m tools.convert_torch',
    description=__doc__,
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(dest='command', required=True)
  bring = commands.add_parser('import', help="the release's files -> a work folder")
  bring.add_argument('folder', help='with gen_*.pt, dis_*.pt, id_*.pt, optimizer.pt and config.yaml')
  bring.add_argument('--teacher', metavar='PATH', help='net_last.pth (opts.yaml beside it), or its folder')
  bring.add_argument('--workdir', required=True, metavar='FOLDER', help='to make')
  bring.add_argument('--step', type=int, help='of the snapshot (default: the newest)')
  bring.add_argument(
    '--without',
    action='append',
    default=[],
    choices=('dis', 'optimizer', 'teacher'),
    help='begin this anew; evaluation needs a teacher, training all three',
  )
  bring.add_argument(
    '--drop-extra',
    action='append',
    default=[],
    metavar='PATTERN',
    help="leave out arrays that have no place here and whose name matches, like '*.query_conv.*'; each is told",
  )
  take = commands.add_parser('export', help="a work folder -> the release's files")
  take.add_argument('workdir', help='of a run')
  take.add_argument('--out', required=True, metavar='FOLDER', help='to make')
  take.add_argument('--step', type=int, help='of the checkpoint (default: the newest)')
  return parser


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's."""
  overrides, others, problems = loading.split_overrides(sys.argv[1:] if arguments is None else arguments)
  options = _parser().parse_args(others)
  with exit_on_user_error():
    if problems or (overrides and options.command != 'import'):
      raise ConfigError(problems or [f'{name}: only for import' for name in overrides])
    if options.command == 'import':
      from dgnet_jax.interop.release.files import find_files  # late: help needs no JAX
      from dgnet_jax.interop.release.importer import import_release

      files = find_files(options.folder, options.teacher, step=options.step, without=options.without)
      import_release(files, options.workdir, overrides=overrides, drop=options.drop_extra)
      print(f'python -m dgnet_jax.main --config={options.workdir}/config.json --workdir={options.workdir}')
    else:
      from dgnet_jax.interop.release.exporter import export_release

      export_release(options.workdir, options.out, step=options.step)


if __name__ == '__main__':
  main()
