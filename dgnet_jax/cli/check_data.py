"""`dgnet check-data`: checks a data set, and compares its counts with the published ones."""

import argparse
import os

from dgnet_jax.cli.arguments import data_fields, positive, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.data.layouts import LAYOUTS

PROBLEMS, DIFFERENCES = 1, 3  # exit status
MAX_LISTED = 100  # problems that are printed; the rest are counted
DETAILS = """Prints the layout, the counts next to the published ones, and everything that is wrong: damaged
files, images in two splits, queries without a match. Downloads and changes nothing.
"""
EPILOG = """examples:
  dgnet check-data --root=Market-1501-v15.09.15 --sheet=market.png
  dgnet check-data --root=images --layout=folders --config.data.camera_pattern='cam(?P<camera>[0-9]+)'

Fields of config.data can be set with --config.data.FIELD=VALUE. The exit status is 0 without problems, 1 with problems,
2 if an argument is wrong or the data set cannot be read, and 3 if nothing is wrong, but some counts differ from the
published ones and others do not, as after an incomplete download.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--root', required=True, metavar='FOLDER', help='folder of the data set, or a .csv file')
  parser.add_argument('--layout', choices=LAYOUTS, default='', help='default: detected from the files')
  parser.add_argument(
    '--sheet', type=writable, metavar='FILE', help='also draw a few people of every split, .png or .jpg'
  )
  parser.add_argument(
    '--threads', type=positive, default=os.cpu_count() or 1, help='files read in parallel (default: %(default)s)'
  )


def run(options: argparse.Namespace) -> None:
  """Prints the report.

  Raises:
    SystemExit: with status 1 if there are problems, else with 3 if some counts are not the published ones.
  """
  fields = data_fields(options)
  from dgnet_jax.data.check import contact_sheet_rows, make_report, scan_files
  from dgnet_jax.data.registry import read_layout
  from dgnet_jax.plots.sheets import image_grid
  from dgnet_jax.utils.writers import IMAGES, check_output, save_image

  if options.sheet:
    check_output(options.sheet, IMAGES)
  index = read_layout(options.root, options.layout, **fields)
  layout = LAYOUTS[index.name]
  print(f'{layout.title}{f", {index.variant}" if index.variant else ""} (data.layout={layout.name}): {index.root}')
  if layout.note:
    print(layout.note)
  scan = scan_files(index, threads=options.threads)
  report = make_report(index, scan)
  print('\n'.join(report.table))
  for line in report.notes:
    print(f'note: {line}')
  for line in report.differences:
    print(f'difference: {line}')
  for line in report.problems[:MAX_LISTED]:
    print(f'problem: {line}')
  if len(report.problems) > MAX_LISTED:
    print(f'and {len(report.problems) - MAX_LISTED} more problems')
  if options.sheet:
    print(f'sheet: {save_image(options.sheet, image_grid(contact_sheet_rows(index, scan)))}')
  count = len(report.problems)
  print('no problems' if not count else '1 problem' if count == 1 else f'{count} problems')
  if report.differences:
    print(f'but not the complete {layout.title}: some counts are not the published ones')
  if count or report.differences:
    raise SystemExit(PROBLEMS if count else DIFFERENCES)


COMMAND = Command(
  name='check-data',
  summary='check a data set, and compare its counts with the published ones',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
  fields='data',
)
