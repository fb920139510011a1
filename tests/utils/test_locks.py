"""Locks between processes, threads and calls."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from dgnet_jax.utils import locks
from dgnet_jax.utils.locks import InUse, exclusive

HOLD = """
import sys, time
from dgnet_jax.utils.locks import exclusive
with exclusive(sys.argv[1], 'the folder'):
  print('held', flush=True)
  time.sleep(60)
"""


@pytest.fixture
def other_process(tmp_path):
  """Another process, which holds the lock `tmp_path/lock`."""
  environment = os.environ | {'PYTHONPATH': ':'.join(sys.path)}
  command = [sys.executable, '-c', HOLD, str(tmp_path / 'lock')]
  with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()


def test_second_process_is_refused_until_the_first_is_killed(tmp_path, other_process):
  with pytest.raises(InUse) as caught, exclusive(tmp_path / 'lock', 'the folder'):
    pytest.fail('locked twice')
  message = str(caught.value)
  assert message.startswith(f'the folder is in use by another process (process {other_process.pid} on ')
  assert '\n' not in message
  other_process.send_signal(signal.SIGKILL)
  other_process.wait()
  assert (tmp_path / 'lock').exists()  # means nothing without its process
  with exclusive(tmp_path / 'lock', 'the folder') as locked:
    assert locked
  assert not list(tmp_path.iterdir())


def test_second_process_can_wait(tmp_path, other_process, lines):
  killer = threading.Timer(0.3, other_process.kill)
  killer.start()
  with exclusive(tmp_path / 'lock', 'the folder', wait=True) as locked:
    assert locked and other_process.wait() == -signal.SIGKILL
  assert any('waiting for another process' in line for line in lines)


def test_a_thread_can_lock_again_and_another_cannot(tmp_path):
  refused = []

  def lock():
    try:
      with exclusive(tmp_path / 'lock', 'the folder'):
        pass
    except InUse as error:
      refused.append(error)

  with exclusive(tmp_path / 'lock', 'the folder'):
    with exclusive(tmp_path / 'lock', 'the folder') as locked:
      assert locked
    thread = threading.Thread(target=lock)
    thread.start()
    thread.join()
    assert len(refused) == 1
  lock()
  assert len(refused) == 1


def test_waiting_threads_hold_the_lock_one_at_a_time(tmp_path):
  """Although each holder removes the file for which the others wait."""
  holders, most = [], []

  def lock():
    for _ in range(20):
      with exclusive(tmp_path / 'lock', 'the folder', wait=True):
        holders.append(None)
        most.append(len(holders))
        holders.pop()

  threads = [threading.Thread(target=lock) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(most) == 80 and max(most) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize('missing', ['module', 'file system'])
def test_work_goes_on_with_a_warning_where_there_are_no_locks(tmp_path, monkeypatch, lines, missing):
  def unsupported(*_):
    raise OSError(errno.ENOTSUP, 'not supported')

  if missing == 'module':
    monkeypatch.setattr(locks, 'fcntl', None)
  else:
    monkeypatch.setattr(locks.fcntl, 'flock', unsupported)
  with exclusive(tmp_path / 'lock', 'the folder') as locked:
    assert not locked
  assert ['the folder: this file system has no locks' in line for line in lines] == [True]
