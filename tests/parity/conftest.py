"""Parity tests run in float64."""

import jax
import pytest

from tests.parity.variants import Variant


@pytest.fixture(scope='module', autouse=True)
def _optimised(optimised):
  """Networks of the release's size are too slow in float64 without XLA's optimisations."""


@pytest.fixture(scope='package')
def float64():
  """Float64 for the entire package's tests that use it."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def variant(request, parity_dir, ledger):
  """The golden of variants.json that the parameter names."""
  return Variant(parity_dir, request.param, ledger)
