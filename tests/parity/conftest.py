"""What the comparisons with the release share. Float64 is on for one test at a time (`x64`), whatever their order."""

import pytest

from tests.parity.variants import Variant


@pytest.fixture(scope='module', autouse=True)
def _optimised(optimised):
  """Networks of the release's size are too slow in float64 without XLA's optimisations."""


@pytest.fixture
def variant(request, parity_dir, ledger):
  """The golden of variants.json that the parameter names."""
  return Variant(parity_dir, request.param, ledger)
