"""The processes of the report on an accelerator: one for each case, and two for the run."""

from collections.abc import Iterator, Sequence
import contextlib
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time

EXIT_SECONDS = 60  # to end by itself, after it has said everything, or has been asked to


class Worker:
  """A process of `dgnet gpu-report` that prints results line by line."""

  def __init__(self, arguments: Sequence[str], log: pathlib.Path) -> None:
    """Starts the process.

    Args:
      arguments: of `dgnet gpu-report`.
      log: file for what it writes to standard error.
    """
    environment = os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', 'TF_CPP_MIN_LOG_LEVEL': '3'}
    command = [sys.executable, '-m', 'dgnet_jax.cli.main', 'gpu-report', *arguments]
    self._path, self._log = log, log.open('w')
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
    )
    self._lines: queue.Queue[str] = queue.Queue()
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self) -> None:
    assert self._process.stdout is not None
    with self._process.stdout as lines:
      for line in lines:
        if line.strip():
          self._lines.put(line.strip())
    self._lines.put('')  # the end

  def line(self, seconds: float) -> str | None:
    """Returns the next line: '' if the process has ended, None if none comes in time."""
    try:
      return self._lines.get(timeout=max(0.01, seconds))
    except queue.Empty:
      return None

  def lines(self, seconds: float, *, interrupt: bool) -> Iterator[str]:
    """Yields lines until the process ends, or time is up.

    Args:
      seconds: time that it has.
      interrupt: when time is up it is asked to stop, and has `EXIT_SECONDS` more to save what it has.

    Raises:
      TimeoutError: it did not end in time.
      ChildProcessError: it failed. Both errors say what it was doing.
    """
    deadline = time.monotonic() + seconds
    while line := self.line(deadline - time.monotonic()):
      yield line
    while interrupt and line != '' and time.monotonic() < deadline + EXIT_SECONDS:
      self._process.terminate()  # again and again: it may be about to begin what has to be stopped
      while line := self.line(1):
        yield line
    try:
      status = self._process.wait(EXIT_SECONDS if line == '' else 0)
    except subprocess.TimeoutExpired:
      raise TimeoutError(self.stage()) from None
    if status == -signal.SIGTERM:  # before it was ready for the signal
      raise TimeoutError(self.stage())
    if status:
      raise ChildProcessError(self.stage())

  def stage(self) -> str:
    """Returns the last line of the log: what the process was doing."""
    lines = self._path.read_text(errors='replace').split('\n')
    return next((line for line in reversed(lines) if line.strip()), 'nothing was logged')

  def go(self) -> None:
    """Lets the process measure."""
    assert self._process.stdin is not None
    self._process.stdin.write('go\n')
    self._process.stdin.flush()

  def stop(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.wait()
    self._reader.join(EXIT_SECONDS)
    if self._process.stdin is not None:
      with contextlib.suppress(BrokenPipeError):
        self._process.stdin.close()
    self._log.close()
