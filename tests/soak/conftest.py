"""The unbroken runs that all tests of this folder compare with."""

import pytest

from tests.conftest import REPO
from tests.soak.runs import Soak


@pytest.fixture(scope='session')
def soak(tmp_path_factory):
  return Soak(tmp_path_factory.mktemp('soak'), REPO / '.pytest_cache' / 'soak')
