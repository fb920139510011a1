"""Parity is shown in float64."""

import jax
import pytest

from tests.parity.variants import Variant


@pytest.fixture(scope='module', autouse=True)
def _optimised(optimised):
  """In float64 networks of the release's size are slow enough as they are."""


@pytest.fixture(scope='package')
def float64():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def variant(request, parity_dir, ledger):
  """The golden of variants.json named by the parameter."""
  return Variant(parity_dir, request.param, ledger)
