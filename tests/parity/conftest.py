"""Parity is shown in float64."""

import jax
import pytest

from tests.parity.variants import Variant


@pytest.fixture(scope='package', autouse=True)
def _optimised():
  """In float64 networks of the release's size are slow enough to run as they are."""
  before = jax.config.values['jax_disable_most_optimizations']
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture(scope='package')
def float64():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def variant(request, parity_dir, ledger):
  """The golden of variants.json named by the parameter."""
  return Variant(parity_dir, request.param, ledger)
