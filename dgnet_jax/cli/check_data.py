"""Looks a data set over: which layout it has, its counts beside the published ones, and what is wrong with it.

Nothing is downloaded, and nothing is written but the sheet.
"""

import argparse
from collections.abc import Sequence
import os
import pathlib
import sys

from dgnet_jax.cli.data_fields import data_fields
from dgnet_jax.config import loading
from dgnet_jax.data.layouts import LAYOUTS
from dgnet_jax.utils.console import exit_on_user_error

MAX_LISTED = 100  # problems in full; the rest are counted
EXAMPLE = """
examples:
  python -m tools.check_data --root=Market-1501-v15.09.15 --sheet=market.png
  python -m tools.check_data --root=images --layout=folders --config.data.camera_pattern='cam(?P<camera>[0-9]+)'

Fields of config.data can be set: --config.data.FIELD=VALUE. Ends with status 0 when all is well, 1 when there are
problems (damaged files, images in two splits, queries without a match, counts that differ from the published), 2
after a mistake or when the data set cannot be read.
"""


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m tools.check_data',
    description=__doc__,
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--root', required=True, metavar='FOLDER', help='of the data set, or a .csv file')
  parser.add_argument('--layout', choices=LAYOUTS, default='', help='default: the one that is recognised')
  parser.add_argument('--sheet', metavar='FILE', help='a PNG to write, with a few people of every split')
  parser.add_argument('--threads', type=int, default=os.cpu_count() or 1, help='files at a time (default: %(default)s)')
  return parser


def check(options: argparse.Namespace, fields: dict[str, object]) -> int:
  """Prints what it finds; returns the number of problems."""
  from dgnet_jax.data.check import contact_sheet, make_report, scan_files  # late: help needs no numpy
  from dgnet_jax.data.registry import read_layout
  from dgnet_jax.plots.sheets import save_png

  index = read_layout(options.root, options.layout, **fields)
  layout = LAYOUTS[index.name]
  print(f'{layout.title}{f", {index.variant}" if index.variant else ""} (data.layout={layout.name}): {index.root}')
  if layout.note:
    print(layout.note)
  scan = scan_files(index, threads=max(1, options.threads))
  report = make_report(index, scan)
  print('\n'.join(report.table))
  for line in report.notes:
    print(f'note: {line}')
  for line in report.problems[:MAX_LISTED]:
    print(f'problem: {line}')
  if len(report.problems) > MAX_LISTED:
    print(f'and {len(report.problems) - MAX_LISTED} more problems')
  if options.sheet:
    print(f'sheet: {save_png(pathlib.Path(options.sheet), contact_sheet(index, scan))}')
  print(f'{len(report.problems)} problems' if report.problems else 'no problems')
  return len(report.problems)


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; see EXAMPLE for the exit status."""
  overrides, others, problems = loading.split_overrides(sys.argv[1:] if arguments is None else arguments)
  options = _parser().parse_args(others)
  with exit_on_user_error():
    found = check(options, data_fields(overrides, problems))
  raise SystemExit(1 if found else 0)


if __name__ == '__main__':
  main()
