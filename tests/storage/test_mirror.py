"""What a local copy sends to object storage, in which order, and what it removes there."""

import contextlib
import shutil

import pytest

from dgnet_jax.storage.mirror import CopyLost
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError
from dgnet_jax.storage.run_files import MARKER
from tests.storage.copies import contents, elsewhere_copy, failing_at, machine, write, write_checkpoint
from tests.storage.fake import stored


def test_another_machine_gets_what_this_one_sent(mirror, remote, tmp_path):
  write(mirror, 'config.json')
  write(mirror, 'evaluation/results.json', '{}')
  write_checkpoint(mirror, 5)
  mirror.send()
  assert stored(remote.address) == contents(mirror) == contents(machine(remote, tmp_path, 'b'))
  write(mirror, 'config.json', 'longer content')
  (mirror.folder / 'evaluation' / 'results.json').unlink()
  mirror.send()
  assert stored(remote.address) == contents(mirror) == contents(machine(remote, tmp_path, 'b'))
  assert 'evaluation/results.json' not in contents(mirror)


def test_nothing_is_sent_or_fetched_twice(mirror, remote, tmp_path, monkeypatch):
  write(mirror, 'a')
  mirror.send()
  copy = machine(remote, tmp_path, 'b')

  def fail(*_):
    raise AssertionError('transferred again')

  for name in ('upload', 'download', 'write', 'remove'):
    monkeypatch.setattr(remote, name, fail)
  mirror.send()
  copy.send()
  machine(remote, tmp_path, 'b')


@pytest.mark.parametrize(
  'name',
  [
    *('synthetic_data/train/a.png', 'data_cache/gs/b/x', '.lock', '.run.lock', 'teacher/.lock', 'log.1.txt'),
    *('.0123abcd.part', 'images/.0123abcd.part', '.0123abcd.part/inside', '.shared_0123'),
    *('checkpoints/.replaced_5_by_5/state/x', 'checkpoints/5.orbax-checkpoint-tmp/state/x'),
  ],
)
def test_what_is_of_this_machine_stays(mirror, remote, tmp_path, name):
  write(mirror, name)
  mirror.send()
  assert stored(remote.address) == {}
  machine(remote, tmp_path, 'a')
  assert (mirror.folder / name).exists()
  remote.write(name, b'of another machine')
  assert name not in contents(machine(remote, tmp_path, 'b'))


def test_log_and_metrics_belong_on_the_storage(mirror, remote):
  for name in ('log.txt', 'metrics.jsonl', 'run.json', 'tensorboard/events.out.tfevents.1', 'images/pairs_5.png'):
    write(mirror, name)
  mirror.send()
  assert stored(remote.address) == contents(mirror)


def test_a_checkpoint_is_complete_only_after_all_of_its_files(mirror, remote, tmp_path, monkeypatch):
  """Whichever request fails, others find the checkpoint before it, and metrics of at least its steps."""
  write(mirror, 'metrics.jsonl', 'five')
  write_checkpoint(mirror, 5)
  mirror.send()
  upload, requests = remote.upload, []

  def failing(path, name):
    if len(requests) == allowed:
      raise StorageError('no network')
    requests.append(name)
    upload(path, name)

  write(mirror, 'metrics.jsonl', 'five and ten')
  write_checkpoint(mirror, 10)
  monkeypatch.setattr('dgnet_jax.storage.mirror.THREADS', 1)
  for allowed in range(4):
    requests.clear()
    monkeypatch.setattr(remote, 'upload', failing)
    with pytest.raises(StorageError):
      mirror.send()
    found = contents(machine(remote, tmp_path, f'b{allowed}'))
    assert {name for name in found if name.startswith('checkpoints/')} == {
      f'checkpoints/5/{name}' for name in ('state/d/1', 'state/manifest', MARKER)
    }
  assert requests[0] == 'metrics.jsonl'
  monkeypatch.setattr(remote, 'upload', upload)
  mirror.send()
  assert contents(machine(remote, tmp_path, 'c')) == contents(mirror)


def test_a_replaced_checkpoint_is_never_a_mixture(mirror, remote, tmp_path, monkeypatch):
  write_checkpoint(mirror, 5, 'old')
  mirror.send()
  write_checkpoint(mirror, 5, 'newer')
  upload = remote.upload

  def failing(path, name):
    if name.endswith('manifest'):
      raise StorageError('no network')
    upload(path, name)

  monkeypatch.setattr(remote, 'upload', failing)
  with pytest.raises(StorageError):
    mirror.send()
  assert contents(machine(remote, tmp_path, 'b')) == {}


def test_a_checkpoint_stays_while_it_is_being_replaced(mirror, remote):
  """The new one is not complete yet, and has no name of its own."""
  write_checkpoint(mirror, 5)
  mirror.send()
  before = stored(remote.address)
  (mirror.folder / 'checkpoints' / '5').rename(mirror.folder / 'checkpoints' / '.replaced_5_by_5')
  mirror.send()
  assert stored(remote.address) == before
  write_checkpoint(mirror, 5, 'newer')
  mirror.send()
  assert set(stored(remote.address).values()) == {b'newer'}


def test_a_checkpoint_removed_while_it_is_sent_is_not_completed(mirror, remote, monkeypatch):
  write_checkpoint(mirror, 5)
  upload = remote.upload

  def remove_first(path, name):
    (mirror.folder / 'checkpoints' / '5' / 'state' / 'd' / '1').unlink(missing_ok=True)
    upload(path, name)

  monkeypatch.setattr(remote, 'upload', remove_first)
  mirror.send()
  assert f'checkpoints/5/{MARKER}' not in stored(remote.address)


def test_the_last_checkpoint_stays_if_its_successor_could_not_be_sent(mirror, remote, tmp_path, monkeypatch):
  """The job writes checkpoints faster than they are sent, and keeps one."""
  write_checkpoint(mirror, 10)
  mirror.send()
  shutil.rmtree(mirror.folder / 'checkpoints' / '10')
  write_checkpoint(mirror, 15)
  upload = remote.upload

  def remove_first(path, name):
    shutil.rmtree(mirror.folder / 'checkpoints' / '15', ignore_errors=True)
    write_checkpoint(mirror, 20)
    upload(path, name)

  monkeypatch.setattr(remote, 'upload', remove_first)
  mirror.send()
  assert set(contents(elsewhere_copy(remote, tmp_path / 'b'))) >= {
    f'checkpoints/10/{MARKER}',
    'checkpoints/10/state/d/1',
  }
  monkeypatch.setattr(remote, 'upload', upload)
  mirror.send()
  assert stored(remote.address) == contents(mirror)


@pytest.mark.parametrize(
  'removed', [['checkpoints/5', 'checkpoints/10/state'], ['config.json'], ['checkpoints/10/state/d/1', 'log.txt']]
)
def test_a_copy_that_is_being_removed_removes_no_checkpoint(mirror, remote, removed):
  """The name of the copy, and a marker, are still there."""
  for name in ('config.json', 'log.txt', 'metrics.jsonl'):
    write(mirror, name)
  write_checkpoint(mirror, 5)
  write_checkpoint(mirror, 10)
  mirror.send()
  before = stored(remote.address)
  for name in removed:
    path = mirror.folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  with contextlib.suppress(CopyLost):
    mirror.send()
  assert stored(remote.address) == before


def test_what_a_failed_send_left_is_removed_later(mirror, remote, monkeypatch):
  write_checkpoint(mirror, 5)
  with monkeypatch.context() as broken:
    broken.setattr(remote, 'list_files', lambda: (_ for _ in ()).throw(StorageError('no network')))
    with pytest.raises(StorageError):
      mirror.send()
  shutil.rmtree(mirror.folder / 'checkpoints' / '5')
  write_checkpoint(mirror, 10)
  mirror.send()
  assert stored(remote.address) == contents(mirror)


def test_a_send_that_ends_anywhere_loses_nothing(address, tmp_path, monkeypatch):
  """Old checkpoints are gone here, new ones were never sent. Others find the old or the new; this machine the new."""
  monkeypatch.setattr('dgnet_jax.storage.mirror.THREADS', 1)
  for number in range(30):
    remote = RemoteFolder(f'{address}/{number}')
    mirror = machine(remote, tmp_path, f'a{number}')
    write(mirror, 'metrics.jsonl', '5')
    write_checkpoint(mirror, 5)
    mirror.send()
    for step in (10, 15):
      write_checkpoint(mirror, step)
    shutil.rmtree(mirror.folder / 'checkpoints' / '5')
    write(mirror, 'metrics.jsonl', '15')
    new = contents(mirror)
    context, requests = failing_at(number, remote, monkeypatch)
    try:
      mirror.send()
    except StorageError:
      assert len(requests) > number
    else:
      assert len(requests) <= number
    context.__exit__(None, None, None)
    elsewhere = contents(elsewhere_copy(remote, tmp_path / f'b{number}'))
    complete = {name.split('/')[1] for name in elsewhere if name.endswith(MARKER)}
    assert complete and complete <= {'5', '10', '15'}
    assert complete == {'5'} or elsewhere['metrics.jsonl'] == b'15'
    again = machine(remote, tmp_path, f'a{number}')
    assert {name: content for name, content in contents(again).items() if '/5/' not in name} == new
    if len(requests) <= number:
      break
  else:
    raise AssertionError('it never came to an end')
  assert stored(remote.address) == new


def test_a_copy_that_is_removed_while_a_job_uses_it_removes_nothing(mirror, remote):
  write_checkpoint(mirror, 5)
  mirror.send()
  before = stored(remote.address)
  shutil.rmtree(mirror.folder)
  with pytest.raises(CopyLost, match='the local copy of .* was removed while a job used it'):
    mirror.send()
  assert stored(remote.address) == before
