"""Progress lines with rate and remaining time.

They are ordinary log lines, not a progress bar of rich or tqdm: the same line serves a terminal, a log file and the
output of a batch scheduler.
"""

import logging
import time

SECONDS_BETWEEN_LINES = 5.0


def format_seconds(seconds: float) -> str:
  """Formats a duration in its two largest units: 42s, 7m05s, 3h20m, 2d04h."""
  seconds = int(seconds)
  if seconds < 60:
    return f'{seconds}s'
  minutes, seconds = divmod(seconds, 60)
  if minutes < 60:
    return f'{minutes}m{seconds:02d}s'
  hours, minutes = divmod(minutes, 60)
  if hours < 24:
    return f'{hours}h{minutes:02d}m'
  return f'{hours // 24}d{hours % 24:02d}h'


class Progress:
  """Measures the rate of a long loop between two calls, and estimates the remaining time from it.

  Args:
    total: steps in the run.
    start: steps already done when the process started.
    unit: name of the steps in the progress line.
  """

  def __init__(self, total: int, start: int = 0, unit: str = 'steps') -> None:
    self._total = total
    self._unit = unit
    self._last_step, self._last_time = start, time.monotonic()

  def line(self, step: int, summary: str = '') -> str:
    """Returns the progress line after `step` steps, with `summary` in its middle."""
    rate = self.rate(step)
    remaining = format_seconds((self._total - step) / rate) if rate else '?'
    middle = f'  {summary}' if summary else ''
    return f'{step}/{self._total}{middle}  {rate:.2f} {self._unit}/s  {remaining} left'

  def rate(self, step: int) -> float:
    """Returns steps per second since the previous call of `rate` or `line`."""
    now = time.monotonic()
    rate = (step - self._last_step) / max(now - self._last_time, 1e-9)
    self._last_step, self._last_time = step, now
    return rate


class ProgressLog:
  """Logs the progress of a long loop, at most every `SECONDS_BETWEEN_LINES`: short work stays silent.

  Args:
    logger: logger of the module that runs the loop.
    label: names the work at the start of a line.
    total: steps in the loop.
    unit: name of the steps.
  """

  def __init__(self, logger: logging.Logger, label: str, total: int, unit: str) -> None:
    self._logger = logger
    self._label = label
    self._progress = Progress(total, unit=unit)
    self._last_line = time.monotonic()

  def update(self, step: int) -> None:
    """Logs a line after `step` steps if it is time for one. There is none for 0 steps, which have no rate."""
    if step and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
      self._logger.info(f'{self._label}: {self._progress.line(step)}')
      self._last_line = time.monotonic()
