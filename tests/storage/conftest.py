import pytest

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
