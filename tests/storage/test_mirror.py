"""The local copy of a folder on object storage: what is fetched, what is sent, and what a killed job leaves."""

import contextlib
import os
import shutil

import pytest

from dgnet_jax.storage.mirror import COPY, CopyLost, Mirror
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError
from dgnet_jax.storage.run_files import MARKER, everything, newest_checkpoints, with_checkpoint
from dgnet_jax.training.checkpoint_replacement import recover
from tests.storage.fake import stored


@pytest.fixture
def remote(address):
  return RemoteFolder(address)


@pytest.fixture
def mirror(remote, tmp_path):
  return machine(remote, tmp_path, 'a')


def machine(remote, tmp_path, name):
  """The copy that the next job of a machine goes on from."""
  mirror = Mirror(remote, tmp_path / name / 'market')
  mirror.take_over()
  return mirror


def reader(remote, tmp_path, name, wanted=newest_checkpoints):
  """A copy of a process that only reads."""
  mirror = Mirror(remote, tmp_path / name / 'market')
  mirror.fetch(wanted)
  return mirror


def write(mirror, name, text='content'):
  path = mirror.folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def write_checkpoint(mirror, step, text='content', folder='checkpoints'):
  for name in ('state/d/1', 'state/manifest', MARKER):
    write(mirror, f'{folder}/{step}/{name}', text)


def contents(mirror):
  return {
    str(path.relative_to(mirror.folder)): path.read_bytes()
    for path in mirror.folder.rglob('*')
    if path.is_file() and path.name != COPY
  }


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


def test_a_job_killed_while_it_replaced_a_checkpoint_can_go_on(mirror, remote, tmp_path):
  for step in (10, 15):
    write_checkpoint(mirror, step)
  mirror.send()
  (mirror.folder / 'checkpoints' / '15').rename(mirror.folder / 'checkpoints' / '.replaced_15_by_12')
  copy = machine(remote, tmp_path, 'a')
  recover(copy.folder / 'checkpoints')
  assert sorted(path.name for path in (copy.folder / 'checkpoints').iterdir()) == ['10', '15']
  copy.send()
  assert stored(remote.address) == contents(copy)


def test_what_a_killed_job_did_not_send_is_kept_on_its_machine(mirror, remote, tmp_path, lines):
  write_checkpoint(mirror, 5)
  mirror.send()
  write_checkpoint(mirror, 10)
  found = machine(remote, tmp_path, 'a')
  assert 'going on from 3 file(s) of this machine' in lines[-1]
  assert f'checkpoints/10/{MARKER}' in contents(found)
  found.send()
  assert stored(remote.address) == contents(found)


def test_the_first_job_may_be_killed_before_it_sends_anything(mirror, remote, tmp_path):
  write(mirror, 'config.json')
  found = machine(remote, tmp_path, 'a')
  found.send()
  assert set(stored(remote.address)) == {'config.json'}


def test_the_storage_counts_if_the_run_went_on_elsewhere(mirror, remote, tmp_path, lines):
  write_checkpoint(mirror, 5)
  mirror.send()
  write_checkpoint(mirror, 10, 'never sent')
  other = machine(remote, tmp_path, 'b')
  write_checkpoint(other, 10, 'of the other machine')
  other.send()
  found = machine(remote, tmp_path, 'a')
  assert contents(found) == contents(other) == stored(remote.address)
  assert '3 file(s) of an earlier job on this machine' in lines[-2]
  kept = found.folder.with_name('market_not_sent') / 'checkpoints' / '10'
  assert (kept / MARKER).read_text() == 'never sent'


def test_images_of_before_do_not_replace_newer_ones(mirror, remote, tmp_path):
  write(mirror, 'images/a.png', 'first')
  mirror.send()
  remote.write('images/a.png', b'of another machine')
  copy = machine(remote, tmp_path, 'a')
  copy.send()
  assert stored(remote.address) == contents(copy) == {'images/a.png': b'of another machine'}


def test_a_folder_that_was_emptied_on_the_storage_is_empty_here(mirror, remote, tmp_path):
  write_checkpoint(mirror, 5)
  mirror.send()
  for name in stored(remote.address):
    remote.remove(name)
  assert contents(machine(remote, tmp_path, 'a')) == {}
  assert not list(mirror.folder.glob('checkpoints/*'))


@pytest.mark.parametrize(
  'damage', [os.remove, lambda path: path.write_text('[3]'), lambda path: path.write_bytes(b'\xff')]
)
def test_a_lost_or_damaged_record_means_sending_again(mirror, remote, tmp_path, damage):
  write(mirror, 'a')
  write(mirror, 'b')
  mirror.send()
  damage(mirror.folder.with_name('market.json'))
  write(mirror, 'a', 'never sent')
  (mirror.folder / 'b').unlink()
  copy = machine(remote, tmp_path, 'a')
  copy.send()
  assert stored(remote.address) == contents(copy) == {'a': b'never sent', 'b': b'content'}


def failing_at(number, remote, monkeypatch):
  """From now on the request of this number fails, and all later ones, as if the process had been killed there."""
  requests = []

  def failing(name):
    method = getattr(remote, name)

    def request(*arguments):
      requests.append(name)
      if len(requests) > number:
        raise StorageError('no network')
      return method(*arguments)

    return request

  context = monkeypatch.context()
  patched = context.__enter__()
  for name in ('upload', 'remove', 'write'):
    patched.setattr(remote, name, failing(name))
  return context, requests


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


def elsewhere_copy(remote, folder):
  """What another machine fetches, which sends nothing."""
  mirror = Mirror(remote, folder / 'market')
  mirror.fetch(everything)
  return mirror


def test_a_copy_that_is_removed_while_a_job_uses_it_removes_nothing(mirror, remote):
  write_checkpoint(mirror, 5)
  mirror.send()
  before = stored(remote.address)
  shutil.rmtree(mirror.folder)
  with pytest.raises(CopyLost, match='the local copy of .* was removed while a job used it'):
    mirror.send()
  assert stored(remote.address) == before


def test_checkpoints_that_were_removed_here_are_fetched_again(mirror, remote, tmp_path):
  """Somebody makes room in the cache."""
  write(mirror, 'config.json')
  write_checkpoint(mirror, 5)
  mirror.send()
  before = stored(remote.address)
  shutil.rmtree(mirror.folder / 'checkpoints')
  mirror.send()
  assert stored(remote.address) == before
  copy = machine(remote, tmp_path, 'a')
  copy.send()
  assert stored(remote.address) == contents(copy) == before


def test_what_was_removed_on_the_storage_does_not_come_back(mirror, remote, tmp_path):
  write_checkpoint(mirror, 5)
  write_checkpoint(mirror, 10)
  mirror.send()
  for name in [name for name in stored(remote.address) if '/10/' in name]:
    remote.remove(name)
  copy = machine(remote, tmp_path, 'a')
  copy.send()
  assert {name.split('/')[1] for name in stored(remote.address)} == {'5'}


def test_leftovers_of_a_killed_job_do_not_disturb_what_is_fetched(mirror, remote, tmp_path):
  write_checkpoint(mirror, 300)
  mirror.send()
  (mirror.folder / 'checkpoints' / '300').rename(mirror.folder / 'checkpoints' / '.replaced_300_by_200')
  other = machine(remote, tmp_path, 'b')
  write_checkpoint(other, 400)
  other.send()
  copy = machine(remote, tmp_path, 'a')
  assert sorted(path.name for path in (copy.folder / 'checkpoints').iterdir()) == ['300', '400']


def test_an_interrupted_fetch_goes_on(mirror, remote, tmp_path, monkeypatch, lines):
  for number in range(9):
    write(mirror, f'file_{number}')
  mirror.send()
  download, done = remote.download, []

  def failing(name, path):
    if len(done) == 4:
      raise StorageError('no network')
    done.append(name)
    download(name, path)

  monkeypatch.setattr('dgnet_jax.storage.mirror.THREADS', 1)
  monkeypatch.setattr(remote, 'download', failing)
  with pytest.raises(StorageError):
    machine(remote, tmp_path, 'b')
  monkeypatch.setattr(remote, 'download', download)
  lines.clear()
  copy = machine(remote, tmp_path, 'b')
  assert contents(copy) == stored(remote.address)
  assert len(lines) == 1 and 'in 5 file(s)' in lines[0]


def test_a_file_that_vanishes_while_it_is_fetched(mirror, remote, tmp_path, monkeypatch):
  write_checkpoint(mirror, 5)
  mirror.send()
  download, listed = remote.download, []

  def vanishing(name, path):
    if len(listed) == 0:
      listed.append(name)
      raise FileNotFoundError(name)
    download(name, path)

  monkeypatch.setattr(remote, 'download', vanishing)
  assert contents(reader(remote, tmp_path, 'b')) == contents(mirror)
  monkeypatch.setattr(remote, 'download', lambda *_: (_ for _ in ()).throw(FileNotFoundError('x')))
  with pytest.raises(StorageError, match='changes while it is fetched'):
    reader(remote, tmp_path, 'c')


def test_readers_fetch_the_newest_checkpoints_or_a_chosen_one(mirror, remote, tmp_path):
  for step in (9, 10, 5):
    write_checkpoint(mirror, step)
    write_checkpoint(mirror, step, folder='teacher/checkpoints')
  for name in ('config.json', 'images/a.png', 'tensorboard/x', 'generated/set/a.png', 'evaluation/results.json'):
    write(mirror, name)
  mirror.send()

  def steps(copy, folder):
    assert {name for name in contents(copy) if 'checkpoints' not in name} == {'config.json', 'evaluation/results.json'}
    return {path.name for path in (copy.folder / folder).iterdir()}

  copy = reader(remote, tmp_path, 'b')
  assert steps(copy, 'checkpoints') == steps(copy, 'teacher/checkpoints') == {'10'}
  copy = reader(remote, tmp_path, 'c', with_checkpoint(9))
  assert (steps(copy, 'checkpoints'), steps(copy, 'teacher/checkpoints')) == ({'9'}, {'10'})


def test_readers_follow_the_storage_and_keep_what_is_theirs(mirror, remote, tmp_path, lines):
  write(mirror, 'a')
  write(mirror, 'b')
  mirror.send()
  copy = reader(remote, tmp_path, 'b')
  write(copy, 'verified_images.json')
  write(copy, 'a', 'changed here')
  (mirror.folder / 'b').unlink()
  mirror.send()
  lines.clear()
  reader(remote, tmp_path, 'b')
  assert contents(copy) == {'a': b'content', 'verified_images.json': b'content'}
  assert len(lines) == 1 and 'fetching' in lines[0]


def test_what_was_not_fetched_is_never_removed(mirror, remote, tmp_path):
  write_checkpoint(mirror, 5)
  write_checkpoint(mirror, 10)
  write(mirror, 'images/a.png')
  mirror.send()
  before = stored(remote.address)
  part = machine(remote, tmp_path, 'b')
  write(part, 'evaluation/results.json', '{}')
  part.send()
  assert stored(remote.address) == before | {'evaluation/results.json': b'{}'}
