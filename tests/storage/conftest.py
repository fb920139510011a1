import pytest

from dgnet_jax.storage.remote_folder import RemoteFolder
from tests.storage.copies import machine
from tests.storage.fake import forget_copies, new_address


@pytest.fixture(autouse=True)
def own_copies(monkeypatch, tmp_path):
  """Local copies in a folder of the test."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  yield
  forget_copies()


@pytest.fixture
def address():
  return new_address()


@pytest.fixture
def remote(address):
  return RemoteFolder(address)


@pytest.fixture
def mirror(remote, tmp_path):
  return machine(remote, tmp_path, 'a')
