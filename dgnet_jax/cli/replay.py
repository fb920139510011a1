"""`dgnet replay`: repeats the steps before a number that is not finite, and shows where it comes from."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dgnet_jax.cli.arguments import at_least, run_folder
from dgnet_jax.cli.command import Command

if TYPE_CHECKING:
  from dgnet_jax.training.inspection import Quantity
  from dgnet_jax.training.replay import Replay

DETAILS = 'Starts from the last checkpoint before the step, with the config of the report, and checks every step.'
EPILOG = """examples:
  dgnet replay --workdir=runs/market
  dgnet replay --workdir=runs/market --step=41337

Training writes WORKDIR/non_finite/step_N/report.json when it stops. Use the same devices: others round differently.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--workdir', required=True, type=run_folder, metavar='FOLDER', help='work folder of the run')
  parser.add_argument('--step', type=at_least(0), metavar='N', help='step of a report; default: the last report')


def run(options: argparse.Namespace) -> None:
  from dgnet_jax.storage.local_copies import fetched
  from dgnet_jax.storage.run_files import all_checkpoints
  from dgnet_jax.training.non_finite import find_report, read_report

  workdir = fetched(options.workdir, all_checkpoints)
  report = read_report(find_report(workdir, options.step))
  from dgnet_jax.training.replay import replay

  for line in lines(replay(report, workdir), report.found.step):
    print(line)


def lines(replay: 'Replay', recorded: int) -> Iterator[str]:
  """Yields what a replay found, as text.

  Args:
    replay: the replay.
    recorded: the step of the report.
  """
  for before in replay.steps:
    norms = ', '.join(f'{name} {norm:.4g}' for name, norm in before.norms.items())
    total = f'total {before.losses["total"]:.4g}; ' if 'total' in before.losses else ''
    yield f'step {before.step}: {total}norm of parameters: {norms}'
  if replay.found is None:
    yield f'steps {replay.start} to {recorded} are finite: the report could not be reproduced'
  else:
    step, what = replay.found.step, [*replay.found.terms, *replay.found.networks]
    yield f'step {step}: not finite: {", ".join(what)}. What it computes, in order:'
    yield from map(_row, replay.quantities)
    first = next((quantity for quantity in replay.quantities if quantity.broken), None)
    if first is None:
      yield 'the program that shows the gradients rounds differently, and all its numbers are finite'
    else:
      where = '' if first.kind == 'loss' else f', in {first.broken[0]}'
      yield f'the first that is not finite: {first.kind} {first.name}{where}'
    if step != recorded:
      yield f'the report is on step {recorded}: the replay differs from the run, or nothing noticed step {step}'
  for change in replay.changes:
    yield f'differs from the run: {change}'


def _row(quantity: 'Quantity') -> str:
  broken = f'  not finite: {len(quantity.broken)} of {quantity.num_arrays} arrays' if quantity.broken else ''
  norm = '' if quantity.kind == 'loss' else 'norm '
  return f'  {quantity.kind:<9}{quantity.name:<25}{norm}{quantity.number:.4g}{broken}'


COMMAND = Command(
  name='replay',
  summary='repeat the steps before a number that is not finite',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
