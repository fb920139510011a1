"""What a soak test has found, as a table and as JSON."""

from collections.abc import Sequence
import dataclasses
import signal
from typing import Any

from tests.soak.jobs import JOBS
from tests.soak.runs import SAVED, RunRecord


def table(runs: Sequence[RunRecord]) -> str:
  """Returns one row per stage: kills, continuations without a problem, and wrong results of runs killed there."""
  rows = [('job', 'stage', 'SIGKILL', 'SIGTERM', 'continued', 'mismatches')]
  for job in JOBS:
    for stage in job.stages:
      hit = [(run, kill) for run in runs for kill in run.kills if (kill.job, kill.stage) == (job.name, stage.name)]
      counts = (
        sum(kill.number == signal.SIGKILL for _, kill in hit),
        sum(kill.number == signal.SIGTERM for _, kill in hit),
        sum(not kill.problem and not (run.failed and kill is run.kills[-1]) for run, kill in hit),
        len({id(run) for run, _ in hit if run.mismatches}),
      )
      rows.append((job.name, stage.name, *map(str, counts)))
  sums = [sum(int(row[column]) for row in rows[1:]) for column in range(2, 5)]
  rows.append(('', f'{len(runs)} runs', *map(str, sums), str(sum(bool(run.mismatches) for run in runs))))
  widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
  return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def exit_times(runs: Sequence[RunRecord]) -> str:
  """Returns how long processes took to end after SIGTERM: those that saved a checkpoint, and the others."""
  lines = []
  for what, saved in (('after saving', True), ('with nothing to save', False)):
    seconds = sorted(
      kill.seconds_to_exit
      for run in runs
      for kill in run.kills
      if kill.number == signal.SIGTERM and (kill.status == SAVED) == saved
    )
    if seconds:
      points = (('median', 0.5), ('90%', 0.9), ('longest', 1.0))
      shown = ', '.join(f'{name} {seconds[round(share * (len(seconds) - 1))]:.2f}' for name, share in points)
      lines.append(f'seconds from SIGTERM to exit {what}, {len(seconds)} times: {shown}')
  return '\n'.join(lines)


def as_json(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
  """Returns the runs as JSON has them."""
  return [dataclasses.asdict(run) for run in runs]
