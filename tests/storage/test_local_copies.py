"""Work folders on object storage: jobs on them, one after the other, on several machines."""

import shutil
import subprocess
import sys
import time

import pytest

from dgnet_jax.errors import Interrupted, MachineError, UserError
from dgnet_jax.storage import local_copies
from dgnet_jax.storage.lease import FILE
from dgnet_jax.storage.local_copies import fetched, fetched_file, kept_in_step
from dgnet_jax.storage.mirror import Mirror
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError
from tests.conftest import REPO
from tests.storage.fake import on_another_machine, stored


@pytest.fixture
def often(monkeypatch):
  """Changes are sent every 20 ms, and the end of a job waits for storage for half a second."""
  monkeypatch.setattr(local_copies, 'SENT_EVERY', 0.02)
  monkeypatch.setattr(local_copies, 'PATIENCE', 0.5)
  monkeypatch.setattr(local_copies, 'PAUSE', 0.05)


def wait_until(condition):
  end = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.02)


def test_a_local_path_is_itself(tmp_path):
  assert fetched(tmp_path) == tmp_path
  assert fetched_file(tmp_path, 'a') == tmp_path / 'a'


def test_what_a_job_writes_is_stored_and_found_by_the_next_machine(address, monkeypatch, tmp_path):
  with kept_in_step(address) as copy:
    assert copy.folder.name == 'market' and set(stored(address)) == {FILE}
    (copy.folder / 'config.json').write_text('{}')
  assert stored(address) == {'config.json': b'{}'}
  on_another_machine(monkeypatch, tmp_path / 'b')
  assert (fetched(address) / 'config.json').read_text() == '{}'
  assert fetched_file(address, 'config.json').read_text() == '{}'
  assert not fetched_file(address, 'absent').exists()


def test_changes_are_sent_while_the_job_runs(address, often):
  with kept_in_step(address) as copy:
    (copy.folder / 'metrics.jsonl').write_text('1')
    wait_until(lambda: 'metrics.jsonl' in stored(address))


def test_changes_can_be_sent_at_once(address):
  with kept_in_step(address) as copy:
    (copy.folder / 'teacher.json').write_text('1')
    copy.send()
    assert 'teacher.json' in stored(address)


def test_a_job_that_fails_sends_what_it_has(address):
  with pytest.raises(ZeroDivisionError), kept_in_step(address) as copy:
    (copy.folder / 'log.txt').write_text('it failed')
    raise ZeroDivisionError
  assert stored(address) == {'log.txt': b'it failed'}


def test_a_job_outlives_an_outage(address, often, monkeypatch, lines):
  upload = RemoteFolder.upload

  def fail(*_):
    raise StorageError('no network')

  with kept_in_step(address) as copy:
    monkeypatch.setattr(RemoteFolder, 'upload', fail)
    (copy.folder / 'a').write_text('1')
    wait_until(lambda: lines)
    monkeypatch.setattr(RemoteFolder, 'upload', upload)
  assert stored(address) == {'a': b'1'}
  assert [line for line in lines if 'no network' in line] == [
    'no network; the job goes on, and what it writes is sent once this works again'
  ]
  assert lines[-1] == f'{address}: everything is sent'


def test_storage_that_stays_away_fails_the_job_at_its_end(address, often, monkeypatch):
  """The next job on the machine sends what was left."""

  def fail(*_):
    raise StorageError('no network')

  with monkeypatch.context() as broken:
    with pytest.raises(
      MachineError, match=r'no network. The last results are on this machine, in .*run the same command'
    ):
      with kept_in_step(address) as copy:
        (copy.folder / 'a').write_text('1')
        broken.setattr(RemoteFolder, 'upload', fail)
  with kept_in_step(address) as copy:
    assert (copy.folder / 'a').read_text() == '1'
  assert stored(address) == {'a': b'1'}


def test_an_interruption_that_could_not_be_sent_is_an_error(address, often, monkeypatch):
  """Its message says that the state is saved, which a preempted machine takes with it."""
  with monkeypatch.context() as broken:
    with pytest.raises(MachineError, match='no network'), kept_in_step(address) as copy:
      (copy.folder / 'a').write_text('1')
      broken.setattr(RemoteFolder, 'upload', lambda *_: (_ for _ in ()).throw(StorageError('no network')))
      raise Interrupted('stopped at step 3; saved')
  with pytest.raises(Interrupted), kept_in_step(address):
    raise Interrupted('stopped at step 4; saved')
  assert stored(address) == {'a': b'1'}


def test_a_signal_during_the_last_sending_waits_for_it(address, monkeypatch):
  send, signals = Mirror.send, []

  def interrupted(self, check):
    if not signals:
      signals.append('SIGTERM')
      raise Interrupted('stopped by SIGTERM')
    send(self, check)

  with pytest.raises(Interrupted, match='SIGTERM'), kept_in_step(address) as copy:
    (copy.folder / 'a').write_text('1')
    monkeypatch.setattr(Mirror, 'send', interrupted)
  assert stored(address) == {'a': b'1'}


@pytest.mark.parametrize(
  'error', [OSError(28, 'No space left on device'), UserError('no such bucket'), ValueError('x')]
)
def test_no_error_ends_the_sending(address, often, monkeypatch, lines, error):
  with kept_in_step(address) as copy:
    with monkeypatch.context() as broken:
      broken.setattr(RemoteFolder, 'upload', lambda *_: (_ for _ in ()).throw(error))
      (copy.folder / 'a').write_text('1')
      wait_until(lambda: lines)
    wait_until(lambda: 'a' in stored(address))
  assert str(error) in lines[0]


def test_the_first_error_is_shown(address, often, monkeypatch):
  with pytest.raises(ZeroDivisionError), kept_in_step(address) as copy:
    (copy.folder / 'a').write_text('1')
    monkeypatch.setattr(RemoteFolder, 'upload', lambda *_: (_ for _ in ()).throw(StorageError('no network')))
    raise ZeroDivisionError


def test_a_job_that_lost_its_lock_sends_no_more(address, often, monkeypatch):
  stopped = []
  monkeypatch.setattr(local_copies, '_stop_this_job', lambda error: stopped.append(True))
  monkeypatch.setattr('dgnet_jax.storage.lease.RENEWED_AFTER', 0.02)
  with pytest.raises(MachineError, match='another job has taken the folder over'), kept_in_step(address) as copy:
    RemoteFolder(address).write(FILE, b'{"id": "another"}')
    wait_until(lambda: stopped)
    (copy.folder / 'a').write_text('1')
  assert stored(address) == {FILE: b'{"id": "another"}'}


def test_a_lock_that_was_taken_is_noticed_before_anything_is_sent(address, monkeypatch):
  """Whichever wakes first after an outage, the thread that renews the lock or the one that sends."""
  stopped = []
  monkeypatch.setattr(local_copies, '_stop_this_job', stopped.append)
  with pytest.raises(MachineError, match='another job has taken the folder over'), kept_in_step(address) as copy:
    RemoteFolder(address).write(FILE, b'{"id": "another"}')
    (copy.folder / 'a').write_text('1')
    with pytest.raises(MachineError):
      copy.send()
  assert len(stopped) == 1
  assert stored(address) == {FILE: b'{"id": "another"}'}


def test_a_job_whose_copy_is_removed_stops(address, often, monkeypatch):
  stopped = []
  monkeypatch.setattr(local_copies, '_stop_this_job', stopped.append)
  with pytest.raises(MachineError, match='was removed while a job used it'), kept_in_step(address) as copy:
    (copy.folder / 'a').write_text('1')
    copy.send()
    shutil.rmtree(copy.folder)
    wait_until(lambda: stopped)
  assert stored(address) == {'a': b'1'}


def test_the_first_results_that_were_never_sent_are_kept(address, often, monkeypatch):
  def fail(self, name, *_, **__):
    if name != FILE:
      raise StorageError('no network')
    write(self, name, *_, **__)

  write = RemoteFolder.write
  with monkeypatch.context() as broken:
    broken.setattr(RemoteFolder, 'write', fail)
    with pytest.raises(MachineError, match='no network'), kept_in_step(address) as copy:
      (copy.folder / 'a').write_text('1')
  with kept_in_step(address) as copy:
    assert (copy.folder / 'a').read_text() == '1'
  assert stored(address) == {'a': b'1'}


def test_an_error_of_the_job_does_not_hide_that_nothing_was_sent(address, often, monkeypatch, lines):
  monkeypatch.setattr(RemoteFolder, 'upload', lambda *_: (_ for _ in ()).throw(StorageError('no network')))
  with pytest.raises(KeyboardInterrupt), kept_in_step(address) as copy:
    (copy.folder / 'a').write_text('1')
    raise KeyboardInterrupt
  assert 'The last results are on this machine' in lines[-1]


def test_processes_of_one_machine_have_copies_of_their_own(address):
  first = fetched(address)
  assert fetched(address) == first
  code = f'import tests.storage.fake; from dgnet_jax.storage.local_copies import fetched; print(fetched({address!r}))'
  other = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=REPO
  ).stdout.strip()
  assert other != str(first) and other.endswith(first.name)


def test_another_kind_of_address_is_refused():
  with pytest.raises(UserError, match='only gs:// and s3://'):
    fetched('az://container/run')
