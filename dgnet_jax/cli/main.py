"""The `dgnet` command: lists the commands, and runs one."""

import argparse
from collections.abc import Sequence
import sys

import dgnet_jax
from dgnet_jax.cli import (
  ablation,
  benchmark,
  calibrate,
  check_data,
  compare,
  convert,
  examples,
  export,
  figures,
  gpu_report,
  index,
  model,
  prepare,
  quality,
  rank,
  replay,
  report,
  serve,
  train,
)
from dgnet_jax.cli.command import execute
from dgnet_jax.config.validation import suggestion

COMMANDS = {
  command.name: command
  for command in (
    *(*train.COMMANDS, replay.COMMAND),
    *(check_data.COMMAND, prepare.COMMAND, examples.COMMAND),
    *(*model.COMMANDS, index.COMMAND, rank.COMMAND, calibrate.COMMAND),
    *serve.COMMANDS,
    *(compare.COMMAND, report.COMMAND, figures.COMMAND, quality.COMMAND),
    *(ablation.COMMAND, benchmark.COMMAND, gpu_report.COMMAND),
    *(convert.COMMAND, export.COMMAND),
  )
}
GROUPS = {
  'train and evaluate': ('train', 'teacher', 'evaluate', 'generate', 'replay'),
  'data sets': ('check-data', 'prepare', 'examples'),
  'a trained model on your images': (
    *('embed', 'index', 'rank', 'calibrate', 'swap', 'interpolate'),
    *('serve', 'page'),
  ),
  'results': ('compare', 'report', 'figures', 'quality', 'ablation', 'benchmark', 'gpu-report'),
  'other formats': ('convert', 'export'),
}
EPILOG = """examples:
  dgnet train --config=synthetic --workdir=runs/synthetic
  dgnet swap runs/synthetic --structure=anna.jpg --appearance=ben.jpg --out=anna_in_bens_clothes.png

`dgnet COMMAND --help` shows the arguments of a command, and examples.
"""


def _parser() -> argparse.ArgumentParser:
  lines = []
  for title, names in GROUPS.items():
    lines += [f'{title}:', *(f'  {name:<12}{COMMANDS[name].summary}' for name in names), '']
  parser = argparse.ArgumentParser(
    prog='dgnet',
    usage='dgnet COMMAND ...',
    description='Person re-identification and person image generation, trained jointly (DG-Net).',
    epilog='\n'.join([*lines, EPILOG]),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--version', action='version', version=f'dgnet_jax {dgnet_jax.__version__}')
  parser.add_argument('command', metavar='COMMAND', help='see below')
  return parser


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs a command.

  Args:
    arguments: without the program's name; those of the process by default.

  Raises:
    SystemExit: with status 2 after a user error, 130 after an interruption.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  parser = _parser()
  name = parser.parse_args(arguments[:1]).command
  if name not in COMMANDS:
    parser.error(f'{name!r} is not a command{suggestion(name, list(COMMANDS))}')
  execute(COMMANDS[name], arguments[1:])


if __name__ == '__main__':
  main()
