"""The lock of a folder on object storage: one holder, and none for ever."""

import json
import threading
import time

import pytest

from dgnet_jax.storage import lease as lease_module
from dgnet_jax.storage.lease import FILE, Lease, leased
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError
from dgnet_jax.utils.locks import InUse


@pytest.fixture(autouse=True)
def fast(monkeypatch):
  """Seconds become hundredths; a holder renews its lock more often than it expires by the factor of the real times."""
  for name in ('RENEWED_AFTER', 'EXPIRES_AFTER', 'LOOK_AGAIN_AFTER', 'SETTLED_AFTER'):
    monkeypatch.setattr(lease_module, name, getattr(lease_module, name) / 50)


@pytest.fixture
def folder(address):
  return RemoteFolder(address)


def never(error):
  raise AssertionError('the lock was lost')


def test_a_second_job_is_refused_while_the_first_renews(folder):
  with leased(folder, never):
    with pytest.raises(InUse, match=r'in use by another job \(process \d+ on .*wait until it ends'):
      Lease(folder, never).acquire()
  assert folder.list_files() == {}
  with leased(folder, never):  # it was given back
    pass


def test_the_lock_of_a_killed_job_expires(folder, lines):
  folder.write(FILE, json.dumps({'id': 'x', 'holder': 'process 7 on host\n', 'renewals': 3}).encode())
  with leased(folder, never) as lease:
    assert lease._id.encode() in folder.read(FILE)
  assert 'is locked (process 7 on host' in lines[0]
  assert 'is gone; this one goes on' in lines[1]


def test_servers_that_write_what_exists_all_the_same(folder, monkeypatch):
  write = folder.write
  monkeypatch.setattr(folder, 'write', lambda name, content, only_new=False: write(name, content))
  with leased(folder, never), pytest.raises(InUse):
    Lease(folder, never).acquire()


@pytest.mark.parametrize('content', [b'', b'{', b'[]', b'{"holder": 3}', b'\xff'])
def test_a_lock_that_is_not_ours_expires_too(folder, content):
  folder.write(FILE, content)
  with leased(folder, never):
    pass


def test_a_lock_that_is_given_back_meanwhile_is_taken_at_once(folder):
  first = Lease(folder, never)
  first.acquire()
  start = time.monotonic()
  threading.Timer(0.05, first.release).start()
  with leased(folder, never):
    assert time.monotonic() - start < lease_module.EXPIRES_AFTER


def test_of_two_jobs_that_find_an_expired_lock_one_gets_it(folder):
  folder.write(FILE, b'{}')
  got, refused = [], []

  def acquire():
    lease = Lease(folder, never)
    try:
      lease.acquire()
      got.append(lease)
    except InUse:
      refused.append(lease)

  threads = [threading.Thread(target=acquire) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert (len(got), len(refused)) == (1, 1)
  got[0].release()


def test_a_holder_notices_that_another_job_took_over(folder):
  lost = threading.Event()
  with leased(folder, lambda error: lost.set()) as lease:
    folder.write(FILE, b'{"id": "another"}')
    assert lost.wait(5)
    assert lease.lost
  assert folder.read(FILE) == b'{"id": "another"}'  # not ours to remove


def test_an_outage_is_survived(folder, monkeypatch):
  with leased(folder, never):
    read, failed = folder.read, threading.Event()

    def fail(name):
      failed.set()
      raise StorageError('no network')

    monkeypatch.setattr(folder, 'read', fail)
    assert failed.wait(5)
    monkeypatch.setattr(folder, 'read', read)
    before = folder.read(FILE)
    time.sleep(3 * lease_module.RENEWED_AFTER)
    assert folder.read(FILE) != before
