"""Files on object storage: how they are listed and written, and what refusals say."""

import fsspec
import pytest

from dgnet_jax.errors import Interrupted, MachineError, UserError
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError


def test_files_are_listed_read_written_and_removed(address, tmp_path):
  folder = RemoteFolder(f'{address}/')
  assert folder.address == address
  assert folder.list_files() == {}
  folder.write('a/b.txt', b'one')
  (tmp_path / 'x').write_bytes(b'three')
  folder.upload(tmp_path / 'x', 'c')
  listed = folder.list_files()
  assert {name: file.size for name, file in listed.items()} == {'a/b.txt': 3, 'c': 5}
  folder.write('a/b.txt', b'two')
  assert folder.list_files()['a/b.txt'].version != listed['a/b.txt'].version
  assert folder.read('a/b.txt') == b'two'
  folder.download('c', tmp_path / 'y')
  assert (tmp_path / 'y').read_bytes() == b'three'
  folder.remove('c')
  folder.remove('c')
  assert set(folder.list_files()) == {'a/b.txt'}


def test_of_several_writers_of_a_new_file_one_succeeds(address):
  folder = RemoteFolder(address)
  folder.write('lock', b'1', only_new=True)
  with pytest.raises(FileExistsError):
    folder.write('lock', b'2', only_new=True)
  assert folder.read('lock') == b'1'


def test_a_missing_file_is_told_from_storage_that_fails(address, monkeypatch):
  folder = RemoteFolder(address)
  with pytest.raises(FileNotFoundError):
    folder.read('absent')

  def refuse(*_, **__):
    raise RuntimeError('403\nForbidden' + 'x' * 9999)

  monkeypatch.setattr(folder._files, 'cat_file', refuse)
  with pytest.raises(StorageError, match=r'runs/market/a: object storage refuses it .*403 Forbidden') as caught:
    folder.read('a')
  assert isinstance(caught.value, MachineError)
  assert len(str(caught.value)) < 1000


def test_a_signal_is_no_storage_error(address, monkeypatch):
  folder = RemoteFolder(address)
  monkeypatch.setattr(folder._files, 'find', lambda *_, **__: (_ for _ in ()).throw(Interrupted('SIGTERM')))
  with pytest.raises(Interrupted):
    folder.list_files()


@pytest.mark.parametrize('name', ['../x', 'a/../../x', 'a//b', './a', 'a\\b', 'a\nb', '/etc/passwd'])
def test_names_that_lead_elsewhere_are_refused(address, name):
  folder = RemoteFolder(address)
  with pytest.raises(StorageError, match='cannot be the name of a file'):
    folder.write(name, b'')


def test_listed_names_are_checked(address, monkeypatch):
  folder = RemoteFolder(address)
  listing = {f'{folder._root}/../../x': {'size': 1}}
  monkeypatch.setattr(folder._files, 'find', lambda *_, **__: listing)
  with pytest.raises(StorageError, match='cannot be the name of a file'):
    folder.list_files()


@pytest.mark.parametrize(
  ('address', 'message'),
  [
    ('az://container/run', 'only gs:// and s3:// are supported'),
    ('http://host/run', 'only gs:// and s3:// are supported'),
    ('gs://', 'name a bucket'),
    ('s3:///', 'name a bucket'),
  ],
)
def test_other_addresses_are_refused(address, message):
  with pytest.raises(UserError, match=message):
    RemoteFolder(address)


def test_a_missing_library_is_named(monkeypatch):
  def fail(*_, **__):
    raise ImportError('install s3fs')

  monkeypatch.setattr(fsspec.core, 'url_to_fs', fail)
  with pytest.raises(UserError, match=r's3:// needs another package: pip install "s3fs'):
    RemoteFolder('s3://bucket/run')
