"""What a person sees while waiting: how far, how fast, how long still."""

import time


def format_seconds(seconds: float) -> str:
  """A duration in the two largest units that matter: 42s, 7m05s, 3h20m, 2d04h."""
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
  """Rate and time left of a long loop, over the interval since the last line.

  Args:
    total: steps in the whole run.
    start: steps done before this process began.
    unit: what a step is called in the line.
  """

  def __init__(self, total: int, start: int = 0, unit: str = 'steps') -> None:
    self._total = total
    self._unit = unit
    self._last_step, self._last_time = start, time.monotonic()

  def line(self, step: int, summary: str = '') -> str:
    """One line for `step` steps done; `summary` is put in its middle."""
    rate = self.rate(step)
    left = format_seconds((self._total - step) / rate) if rate else '?'
    middle = f'  {summary}' if summary else ''
    return f'{step}/{self._total}{middle}  {rate:.2f} {self._unit}/s  {left} left'

  def rate(self, step: int) -> float:
    """Steps per second since the last call."""
    now = time.monotonic()
    rate = (step - self._last_step) / max(now - self._last_time, 1e-9)
    self._last_step, self._last_time = step, now
    return rate
