import os
import signal

import pytest

from dgnet_jax.training.preemption import stop_signals


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_flag_and_the_second_acts_as_before(number):
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


def test_handlers_come_back():
  before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
  with pytest.raises(ValueError), stop_signals():
    raise ValueError
  assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
