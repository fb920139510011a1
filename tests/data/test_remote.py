"""Copies of prepared data sets from object storage."""

import io

from etils import epath
import pytest

from dgnet_jax.data.remote import local_copy
from dgnet_jax.errors import UserError


class Bucket:
  """A local folder that looks like a folder on object storage."""

  def __init__(self, path):
    self._path, self.name = path, path.name

  def iterdir(self):
    return map(Bucket, self._path.iterdir())

  def is_file(self):
    return self._path.is_file()

  def stat(self):
    return type('Stat', (), {'length': self._path.stat().st_size})

  def open(self, mode):
    return io.BytesIO(self._path.read_bytes())


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """The local folder behind gs://bucket/data/1.0.0."""
  folder = tmp_path / 'bucket'
  folder.mkdir()
  monkeypatch.setattr(epath, 'Path', lambda root: Bucket(folder))
  return folder


def test_only_missing_and_incomplete_files_are_copied(bucket, tmp_path, lines):
  for name in ('a', 'b', 'c'):
    (bucket / name).write_text(f'content of {name}')
  copy = local_copy('gs://bucket/data/1.0.0/', tmp_path / 'cache')
  assert copy == tmp_path / 'cache' / 'gs' / 'bucket' / 'data' / '1.0.0'
  assert {path.name: path.read_text() for path in copy.iterdir()} == {name: f'content of {name}' for name in 'abc'}
  assert lines[0].startswith('copying 3 files')
  (copy / 'a').unlink()
  (copy / 'b').write_text('content')
  lines.clear()
  local_copy('gs://bucket/data/1.0.0', tmp_path / 'cache')
  assert lines[0].startswith('copying 2 files') and (copy / 'b').read_text() == 'content of b'
  lines.clear()
  local_copy('gs://bucket/data/1.0.0', tmp_path / 'cache')
  assert not lines


def test_interrupted_copy_leaves_no_file(bucket, tmp_path, monkeypatch):
  (bucket / 'a').write_text('content')
  monkeypatch.setattr(Bucket, 'open', lambda self, mode: (_ for _ in ()).throw(OSError('connection reset')))
  with pytest.raises(UserError, match='gs://bucket/x: cannot be read: connection reset'):
    local_copy('gs://bucket/x', tmp_path / 'cache')
  assert not [path for path in (tmp_path / 'cache').rglob('*') if path.is_file()]


def test_empty_folder_is_an_error(bucket, tmp_path):
  with pytest.raises(UserError, match='gs://bucket/x: no files in it'):
    local_copy('gs://bucket/x', tmp_path)


def test_errors_of_any_library_are_reported(bucket, tmp_path, monkeypatch):
  class NoCredentials(Exception):
    pass

  def fail(self):
    raise NoCredentials('x' * 9999)

  monkeypatch.setattr(Bucket, 'iterdir', fail)
  with pytest.raises(UserError, match='gs://bucket/x: cannot be read: xxx') as caught:
    local_copy('gs://bucket/x', tmp_path)
  assert len(str(caught.value)) < 1000
