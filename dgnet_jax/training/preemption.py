"""Ctrl-C and SIGTERM as a flag that a loop looks at between steps."""

from collections.abc import Callable, Iterator
import contextlib
import signal
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
  """While it lasts, the first Ctrl-C or SIGTERM only sets a flag; the second acts as always. Main thread only.

  Yields:
    Whether a signal came.
  """
  received: list[int] = []
  previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

  def restore() -> None:
    for number, handler in previous.items():
      signal.signal(number, handler)

  def note(number: int, _: Any) -> None:
    received.append(number)
    restore()

  for number in previous:
    signal.signal(number, note)
  try:
    yield lambda: bool(received)
  finally:
    restore()
