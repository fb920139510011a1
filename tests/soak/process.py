"""One start of a `dgnet` command, which may be ended by a signal at a chosen moment."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

CHILD = pathlib.Path(__file__).parent / 'child'
REPO = CHILD.parents[2]
PATIENCE = 600  # seconds until a process counts as hanging
POLL = 0.005  # seconds


@dataclasses.dataclass(frozen=True)
class AtChange:
  """Just before the n-th change of a file whose path in the folder of the job matches.

  Attributes:
    pattern: a regular expression, searched in the path relative to the folder.
    count: n, from 1.
  """

  pattern: str
  count: int


@dataclasses.dataclass(frozen=True)
class AfterLine:
  """Some time after the first line of output that matches.

  Attributes:
    pattern: a regular expression, matched at the start of a line; the empty one matches when the process starts.
    seconds: how long after.
  """

  pattern: str
  seconds: float


@dataclasses.dataclass(frozen=True)
class Kill:
  """A signal to send, and when."""

  moment: AtChange | AfterLine
  number: signal.Signals


@dataclasses.dataclass(frozen=True)
class Ended:
  """How a process ended.

  Attributes:
    status: its exit status, negative if a signal ended it.
    output: what it printed.
    seconds_to_exit: from the signal to the end of the process; None if it ended before the moment came.
    change: path of the file that it was about to change when it was killed there; '' otherwise.
    lines: seconds from the start to each line of output, and the line.
    changes: paths of the files that it changed, in order.
  """

  status: int
  output: str
  seconds_to_exit: float | None
  change: str
  lines: Sequence[tuple[float, str]]
  changes: Sequence[str]


def environment(cache: pathlib.Path) -> dict[str, str]:
  """The environment of a process that keeps its compiled programs in `cache`, as a user's does in ~/.cache."""
  jax = {'JAX_PLATFORMS': 'cpu', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1', 'XLA_FLAGS': ''}
  inherited = {name: value for name, value in os.environ.items() if name != 'JAX_COMPILATION_CACHE_DIR'}
  return inherited | jax | {'XDG_CACHE_HOME': str(cache), 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}


def run(
  arguments: Sequence[str], folder: pathlib.Path, variables: Mapping[str, str], *, kill: Kill | None, clock: int | None
) -> Ended:
  """Runs `dgnet` to its end, or until it is killed.

  Args:
    arguments: of the command.
    folder: the job's folder, below which file changes are seen; the log files lie beside it.
    variables: from `environment`.
    kill: the signal to send.
    clock: the seed of the jumps of the clock; None for none.
  """
  log, printed = folder.with_name(f'{folder.name}.changes'), folder.with_name(f'{folder.name}.output')
  marker = pathlib.Path(f'{log}.killed')
  for path in (log, marker):
    path.unlink(missing_ok=True)
  moment = kill.moment if kill else None
  at_change = [moment.pattern, moment.count, int(kill.number)] if kill and isinstance(moment, AtChange) else None
  settings = {'root': str(folder), 'log': str(log), 'kill': at_change, 'clock': clock}
  extra = {'PYTHONPATH': f'{CHILD}:{REPO}', 'DGNET_SOAK': json.dumps(settings)}
  with printed.open('w') as output:
    command = [sys.executable, '-m', 'dgnet_jax.cli.main', *arguments]
    process = subprocess.Popen(command, env={**variables, **extra}, stdout=output, stderr=output, cwd=folder.parent)
    try:
      after_line = kill if isinstance(moment, AfterLine) else None
      sent, lines = _watch(process, printed, after_line)
    finally:
      process.kill()
      process.wait()
  ended = time.monotonic()
  change = ''
  if marker.exists():
    sent, change = json.loads(marker.read_text())
  changes = log.read_text().splitlines() if log.exists() else []
  text = printed.read_text(errors='replace')
  return Ended(process.returncode, text, None if sent is None else ended - sent, change, lines, changes)


def _watch(
  process: subprocess.Popen[bytes], printed: pathlib.Path, kill: Kill | None
) -> tuple[float | None, list[tuple[float, str]]]:
  """Waits for the end; returns when the signal was sent, and the lines with the seconds at which they appeared."""
  start, sent, due, lines = time.monotonic(), None, None, []
  with printed.open(errors='replace') as file:
    rest = ''
    while True:
      is_over, now = process.poll() is not None, time.monotonic()
      *complete, rest = (rest + file.read()).split('\n')
      lines += [(now - start, line) for line in complete]
      if kill and due is None:
        assert isinstance(kill.moment, AfterLine)
        pattern = kill.moment.pattern
        if not pattern or any(re.match(pattern, line) for line in complete):
          due = now + kill.moment.seconds
      if is_over:
        return sent, lines
      if kill and due is not None and sent is None and now >= due:
        process.send_signal(kill.number)
        sent = now
      if now > start + PATIENCE:
        raise TimeoutError(f'{process.args} hangs; see {printed}')
      time.sleep(POLL)
