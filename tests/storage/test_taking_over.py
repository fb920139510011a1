"""What a job or a reader finds in a local copy after other jobs, which may have been killed or on other machines."""

import os
import shutil

import pytest

from dgnet_jax.storage.remote_folder import StorageError
from dgnet_jax.storage.run_files import MARKER, with_checkpoint
from dgnet_jax.training.checkpoint_replacement import recover
from tests.storage.copies import contents, machine, reader, write, write_checkpoint
from tests.storage.fake import stored


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
