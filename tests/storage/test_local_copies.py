"""Work folders on object storage: jobs on them, one after the other, on several machines."""

import subprocess
import sys
import time

import pytest

from dgnet_jax.errors import MachineError, UserError
from dgnet_jax.storage import local_copies
from dgnet_jax.storage.lease import FILE
from dgnet_jax.storage.local_copies import fetched, fetched_file, kept_in_step, send_changes
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError
from tests.storage.fake import on_another_machine, stored


@pytest.fixture
def often(monkeypatch):
  """Changes are sent every 20 ms, and the end of a job waits for storage for half a second."""
  monkeypatch.setattr(local_copies, 'SENT_EVERY', 0.02)
  monkeypatch.setattr(local_copies, 'PATIENCE', 0.5)
  monkeypatch.setattr(local_copies, 'PAUSE', 0.05)


def test_a_local_path_is_itself(tmp_path):
  assert fetched(tmp_path) == tmp_path
  assert fetched_file(tmp_path, 'a') == tmp_path / 'a'


def test_what_a_job_writes_is_stored_and_found_by_the_next_machine(address, monkeypatch, tmp_path):
  with kept_in_step(address) as folder:
    assert folder.name == 'market' and set(stored(address)) == {FILE}
    (folder / 'config.json').write_text('{}')
  assert stored(address) == {'config.json': b'{}'}
  on_another_machine(monkeypatch, tmp_path / 'b')
  assert (fetched(address) / 'config.json').read_text() == '{}'
  assert fetched_file(address, 'config.json').read_text() == '{}'
  assert not fetched_file(address, 'absent').exists()


def test_changes_are_sent_while_the_job_runs(address, often):
  with kept_in_step(address) as folder:
    (folder / 'metrics.jsonl').write_text('1')
    end = time.monotonic() + 10
    while 'metrics.jsonl' not in stored(address):
      assert time.monotonic() < end
      time.sleep(0.02)


def test_changes_can_be_sent_at_once(address):
  with kept_in_step(address) as folder:
    (folder / 'teacher.json').write_text('1')
    send_changes(address)
    assert 'teacher.json' in stored(address)


def test_a_job_that_fails_sends_what_it_has(address):
  with pytest.raises(ZeroDivisionError), kept_in_step(address) as folder:
    (folder / 'log.txt').write_text('it failed')
    raise ZeroDivisionError
  assert stored(address) == {'log.txt': b'it failed'}


def test_a_job_outlives_an_outage(address, often, monkeypatch, lines):
  upload = RemoteFolder.upload

  def fail(*_):
    raise StorageError('no network')

  with kept_in_step(address) as folder:
    monkeypatch.setattr(RemoteFolder, 'upload', fail)
    (folder / 'a').write_text('1')
    end = time.monotonic() + 10
    while not lines:
      assert time.monotonic() < end
      time.sleep(0.02)
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
    with pytest.raises(MachineError, match=r'no network. The last results are in .*run the same command again'):
      with kept_in_step(address) as folder:
        (folder / 'a').write_text('1')
        broken.setattr(RemoteFolder, 'upload', fail)
  with kept_in_step(address) as folder:
    assert (folder / 'a').read_text() == '1'
  assert stored(address) == {'a': b'1'}


def test_the_first_error_is_shown(address, often, monkeypatch):
  with pytest.raises(ZeroDivisionError), kept_in_step(address) as folder:
    (folder / 'a').write_text('1')
    monkeypatch.setattr(RemoteFolder, 'upload', lambda *_: (_ for _ in ()).throw(StorageError('no network')))
    raise ZeroDivisionError


def test_a_job_that_lost_its_lock_sends_no_more(address, often, monkeypatch):
  stopped = []
  monkeypatch.setattr(local_copies, '_stop_this_job', lambda: stopped.append(True))
  monkeypatch.setattr('dgnet_jax.storage.lease.RENEWED_AFTER', 0.02)
  with pytest.raises(MachineError, match='another job has taken the folder over'), kept_in_step(address) as folder:
    RemoteFolder(address).write(FILE, b'{"id": "another"}')
    end = time.monotonic() + 10
    while not stopped:
      assert time.monotonic() < end
      time.sleep(0.02)
    (folder / 'a').write_text('1')
  assert stored(address) == {FILE: b'{"id": "another"}'}


def test_processes_of_one_machine_have_copies_of_their_own(address):
  first = fetched(address)
  assert fetched(address) == first
  code = f'import fsspec; from dgnet_jax.storage.local_copies import fetched; print(fetched({address!r}))'
  other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
  assert other != str(first) and other.endswith(first.name)


def test_another_kind_of_address_is_refused():
  with pytest.raises(UserError, match='only gs:// and s3://'):
    fetched('az://container/run')
