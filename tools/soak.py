"""`python -m tools.soak`: kills training, generation and export at random moments, and compares with unbroken runs.

It works in a new folder for temporary files, which it removes; a run with a wrong result is kept for inspection.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time

from dgnet_jax.utils.atomic_files import write_json
from tests.soak.report import as_json, exit_times, table
from tests.soak.runs import RunRecord, Soak


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m tools.soak', description=__doc__.split('\n\n')[0].split(': ')[1])
  parser.add_argument('--kills', type=int, default=100, help='how many kills (default: %(default)s)')
  parser.add_argument('--minutes', type=float, default=60, help='start no run after this time (default: %(default)s)')
  parser.add_argument('--seed', type=int, default=0, help='of stages, moments and signals (default: %(default)s)')
  parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='also write every kill to this file')
  return parser


def main() -> None:
  """Runs until all kills are done or the time is over; exit status 1 if anything was wrong."""
  options = _parser().parse_args()
  folder = pathlib.Path(tempfile.mkdtemp(prefix='dgnet_soak_'))
  print(f'working in {folder}; first, runs without a kill', flush=True)
  start, runs = time.monotonic(), []
  for record in Soak(folder, folder / 'cache').runs(options.seed):
    runs.append(record)
    _show_progress(runs, time.monotonic() - start, options)
    if options.json:
      write_json(options.json, {'seed': options.seed, 'runs': as_json(runs)})
    if _num_kills(runs) >= options.kills or time.monotonic() - start > options.minutes * 60:
      break
  print(f'\n{table(runs)}\n\n{exit_times(runs)}')
  wrong = [run for run in runs if run.failed or run.mismatches or any(kill.problem for kill in run.kills)]
  for run in wrong:
    print(f'\n{run}')
  if wrong:
    print(f'\nwrong runs are in {folder}', file=sys.stderr)
    raise SystemExit(1)
  shutil.rmtree(folder)


def _num_kills(runs: list[RunRecord]) -> int:
  return sum(len(run.kills) for run in runs)


def _show_progress(runs: list[RunRecord], seconds: float, options: argparse.Namespace) -> None:
  kills = _num_kills(runs)
  left = min(options.minutes * 60 - seconds, seconds * (options.kills / kills - 1)) if kills else options.minutes * 60
  last = runs[-1]
  result = last.failed or ', '.join(last.mismatches) or 'equal to the unbroken run'
  print(
    f'{kills}/{options.kills} kills, {seconds / 60:.1f} min, about {max(left, 0) / 60:.0f} min left; '
    f'{last.job}{", clock jumps" if last.clock_jumps else ""}, {len(last.kills)} kills: {result}',
    flush=True,
  )


if __name__ == '__main__':
  main()
