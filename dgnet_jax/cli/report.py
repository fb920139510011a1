"""`dgnet report`: what the work folder of a run has, in one HTML file."""

import argparse
import logging
import pathlib

from dgnet_jax.cli.arguments import run_folder, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)

DETAILS = """Settings, data, training, results, thresholds, curves, sheets, figures and failures of a run in one file
that loads nothing. Shows what the work folder has, and says what it lacks; `dgnet evaluate --step=best`, `dgnet
figures embeddings` and `dgnet calibrate` add to it.
"""
EPILOG = """examples:
  dgnet figures embeddings --workdir=runs/market
  dgnet report runs/market                              # writes runs/market/report.html
  dgnet report runs/market --out=market.html
"""
NAME = 'report.html'  # in a work folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('run', type=run_folder, metavar='RUN', help='work folder of a run')
  parser.add_argument('--out', type=writable, metavar='FILE', help=f'.html file to write (default: RUN/{NAME})')


def run(options: argparse.Namespace) -> None:
  from dgnet_jax.reports.run_report import write_report
  from dgnet_jax.utils.writers import check_output

  if options.out is None and not isinstance(options.run, pathlib.Path):
    raise UserError(f'{options.run}: is on object storage; name a file of this machine, --out={NAME}')
  out = options.out
  if out is None:
    if not options.run.is_dir():
      raise UserError(f'{options.run}: no such folder; name the work folder of a run')
    out = options.run / NAME
  check_output(out, ('.html',))
  left_out = write_report(options.run, out)
  for line in left_out:
    logger.info(f'no room for {line}')
  logger.info(f'report: {out} ({out.stat().st_size / 1e6:.1f} MB)')


COMMAND = Command(
  name='report',
  summary='write a report about a run, one HTML file',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
