"""The local copy of a folder on object storage: what is fetched, what is sent, and what a killed job leaves."""

import os

import pytest

from dgnet_jax.storage.mirror import MARKER, Mirror, everything, newest_checkpoints, with_checkpoint
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError
from tests.storage.fake import stored


@pytest.fixture
def remote(address):
  return RemoteFolder(address)


@pytest.fixture
def mirror(remote, tmp_path):
  mirror = Mirror(remote, tmp_path / 'a' / 'market')
  mirror.fetch(everything)
  return mirror


def machine(remote, tmp_path, name, wanted=everything):
  """The folder of a copy as the next process of a machine finds it."""
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
    str(path.relative_to(mirror.folder)): path.read_bytes() for path in mirror.folder.rglob('*') if path.is_file()
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


def test_what_a_killed_job_did_not_send_is_kept_on_its_machine(mirror, remote, tmp_path, lines):
  write_checkpoint(mirror, 5)
  mirror.send()
  write_checkpoint(mirror, 10)
  found = machine(remote, tmp_path, 'a')
  assert 'going on from files of this machine' in lines[-1]
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
  assert '3 files of an earlier job on this machine' in lines[-2]


def test_a_folder_that_was_emptied_on_the_storage_is_empty_here(mirror, remote, tmp_path):
  write_checkpoint(mirror, 5)
  mirror.send()
  for name in stored(remote.address):
    remote.remove(name)
  assert contents(machine(remote, tmp_path, 'a')) == {}
  assert not list(mirror.folder.glob('checkpoints/*'))


def test_a_lost_or_damaged_record_means_fetching_again(mirror, remote, tmp_path):
  write(mirror, 'a')
  mirror.send()
  for damage in (os.remove, lambda path: path.write_text('[3]'), lambda path: path.write_bytes(b'\xff')):
    damage(mirror.folder.with_name('market.json'))
    (mirror.folder / 'a').write_text('something else')
    assert contents(machine(remote, tmp_path, 'a')) == {'a': b'content'}


def test_readers_fetch_the_newest_checkpoints_or_a_chosen_one(mirror, remote, tmp_path):
  for step in (9, 10, 5):
    write_checkpoint(mirror, step)
    write_checkpoint(mirror, step, folder='teacher/checkpoints')
  for name in ('config.json', 'images/a.png', 'tensorboard/x', 'generated/set/a.png', 'evaluation/results.json'):
    write(mirror, name)
  mirror.send()

  def steps(folder, wanted):
    copy = machine(remote, tmp_path, f'{folder[:1]}{wanted(["x"])}', wanted)
    found = {path.name for path in (copy.folder / folder).iterdir()}
    others = {name for name in contents(copy) if 'checkpoints' not in name}
    assert others == {'config.json', 'evaluation/results.json'}
    return found

  assert steps('checkpoints', newest_checkpoints) == steps('teacher/checkpoints', newest_checkpoints) == {'10'}
  assert steps('checkpoints', with_checkpoint(9)) == {'9', '10'}  # 10 was fetched into this copy before


def test_a_copy_in_part_never_removes_the_rest(mirror, remote, tmp_path):
  write_checkpoint(mirror, 5)
  write_checkpoint(mirror, 10)
  write(mirror, 'images/a.png')
  mirror.send()
  before = stored(remote.address)
  part = machine(remote, tmp_path, 'b', newest_checkpoints)
  write(part, 'evaluation/results.json', '{}')
  part.send()
  assert stored(remote.address) == before | {'evaluation/results.json': b'{}'}
