"""Ctrl-C and SIGTERM as a flag that a loop checks between steps."""

from collections.abc import Callable, Iterator
import contextlib
import itertools
import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

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


# Numbers the questions that a process asks the others, over all its jobs: the answer is a number that all get to.
_questions = itertools.count()


@contextlib.contextmanager
def agreed_stop_signals() -> Iterator[Callable[[], bool]]:
  """Like `stop_signals` for a loop that all processes of a job run in step.

  A signal that any of them receives stops all of them before the same step. SIGTERM is noticed by JAX's
  preemption service, from `jax.distributed.initialize` on; the first Ctrl-C is passed on to it.

  Yields:
    A function to call once in every step, in every process.
  """
  if jax.process_count() == 1:
    with stop_signals() as stopped:
      yield stopped
    return
  with _interrupt_as_termination():
    yield lambda: bool(multihost_utils.reached_preemption_sync_point(next(_questions)))


@contextlib.contextmanager
def _interrupt_as_termination() -> Iterator[None]:
  """Within the context the first Ctrl-C counts as SIGTERM; the second has its usual effect."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  previous = signal.getsignal(signal.SIGINT)

  def on_interrupt(*_: Any) -> None:
    signal.signal(signal.SIGINT, previous)
    os.kill(os.getpid(), signal.SIGTERM)

  signal.signal(signal.SIGINT, on_interrupt)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, previous)


def let_signals_end_the_process() -> None:
  """Gives SIGTERM its usual effect again, which JAX's preemption service takes from it, where no step asks for it."""
  if jax.process_count() > 1 and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
