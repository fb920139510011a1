"""Ctrl-C and SIGTERM as a flag that a loop checks between steps."""

from collections.abc import Callable, Iterator
import contextlib
import signal
import threading
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
  """Within the context the first Ctrl-C or SIGTERM only sets a flag; the second has its usual effect.

  Python handles signals in the main thread only. In any other thread no handler is installed, and the flag stays unset.

  Yields:
    A function that returns True once a signal has been received.
  """
  received: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield lambda: False
    return
  previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}

  def restore() -> None:
    for number, handler in previous.items():
      # None: the handler was not installed from Python, and cannot be reinstalled from it.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)

  def on_signal(number: int, _: Any) -> None:
    received.append(number)
    restore()

  for number in STOP_SIGNALS:
    signal.signal(number, on_signal)
  try:
    yield lambda: bool(received)
  finally:
    restore()
