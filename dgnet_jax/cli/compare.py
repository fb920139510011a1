"""`dgnet compare`: what differs between runs, in settings and in results."""

import argparse

from dgnet_jax.cli.arguments import run_folder, writable
from dgnet_jax.cli.command import Command

DETAILS = """Prints the settings that differ, the versions, machines and training data that differ, and the results:
rankings, image quality and the last losses, with their difference to the first run. Reads only files of the work
folders, and of runs of earlier versions what there is.
"""
EPILOG = """examples:
  dgnet compare runs/market runs/market_cosine
  dgnet compare runs/seed_0 runs/seed_1 runs/seed_2 --out=seeds.csv

Long values are shortened on the screen, and complete in FILE.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'runs', nargs='+', type=run_folder, metavar='RUN', help='work folders; differences are those to the first'
  )
  parser.add_argument('--out', type=writable, metavar='FILE', help='also write the comparison to this .json or .csv')


def run(options: argparse.Namespace) -> None:
  from dgnet_jax.reports.comparison import FORMATS, compare_runs, comparison_text, write_comparison
  from dgnet_jax.utils.writers import check_output

  if options.out:
    check_output(options.out, FORMATS)
  comparison = compare_runs(options.runs)
  print(comparison_text(comparison))
  if options.out:
    write_comparison(comparison, options.out)
    print(f'comparison: {options.out}')


COMMAND = Command(
  name='compare',
  summary='show what differs between runs, in settings and in results',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
