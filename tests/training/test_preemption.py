import os
import signal
import threading

import pytest

from dgnet_jax.training.preemption import STOP_SIGNALS, stop_signals


@pytest.mark.parametrize('number', STOP_SIGNALS)
def test_first_signal_sets_the_flag_and_second_acts_as_before(number):
  received = []
  before = signal.signal(number, lambda *_: received.append('before'))
  try:
    with stop_signals() as stopped:
      assert not stopped()
      os.kill(os.getpid(), number)
      assert stopped() and not received
      os.kill(os.getpid(), number)
      assert received == ['before']
  finally:
    signal.signal(number, before)


def test_handlers_are_restored_after_an_exception():
  before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
  with pytest.raises(ValueError), stop_signals():
    raise ValueError
  assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_handler_from_outside_python_is_replaced_by_the_default(monkeypatch):
  installed = {}
  monkeypatch.setattr(signal, 'getsignal', lambda number: None)
  monkeypatch.setattr(signal, 'signal', installed.__setitem__)
  with stop_signals():
    assert signal.SIG_DFL not in installed.values()
  assert installed == dict.fromkeys(STOP_SIGNALS, signal.SIG_DFL)


def test_other_threads_install_no_handlers():
  before = [signal.getsignal(number) for number in STOP_SIGNALS]
  observed = []

  def work():
    with stop_signals() as stopped:
      observed.append(stopped())
      observed.append([signal.getsignal(number) for number in STOP_SIGNALS])

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert observed == [False, before]
