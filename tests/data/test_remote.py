"""Copies of data sets from object storage."""

import pytest

from dgnet_jax.data.remote import local_copy
from dgnet_jax.errors import MachineError, UserError
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError
from tests.storage.fake import new_address


@pytest.fixture
def remote():
  return RemoteFolder(new_address())


def contents(folder):
  return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_only_missing_and_incomplete_files_are_copied(remote, tmp_path, lines):
  files = {name: name.encode() for name in ('bounding_box_train/0001_c1s1_1_00.jpg', 'query/0002_c1s1_1_00.jpg', 'a')}
  for name, content in files.items():
    remote.write(name, content)
  copy = local_copy(f'{remote.address}/', tmp_path / 'cache')
  assert copy == tmp_path / 'cache' / remote.address.replace('://', '/')
  assert contents(copy) == files
  assert lines[0].startswith('copying 3 files')
  (copy / 'a').unlink()
  (copy / 'query' / '0002_c1s1_1_00.jpg').write_text('0002')
  lines.clear()
  local_copy(remote.address, tmp_path / 'cache')
  assert lines[0].startswith('copying 2 files') and contents(copy) == files
  lines.clear()
  local_copy(remote.address, tmp_path / 'cache')
  assert not lines


def test_interrupted_copy_leaves_no_file(remote, tmp_path, monkeypatch):
  remote.write('a', b'content')

  def fail(self, name, path):
    path.write_bytes(b'con')
    raise StorageError('connection reset')

  monkeypatch.setattr(RemoteFolder, 'download', fail)
  with pytest.raises(MachineError, match='connection reset'):
    local_copy(remote.address, tmp_path / 'cache')
  assert not contents(tmp_path)


def test_empty_folder_is_an_error(remote, tmp_path):
  with pytest.raises(UserError, match='no files in it'):
    local_copy(remote.address, tmp_path)
