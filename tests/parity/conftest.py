"""Parity is shown in float64."""

import jax
import pytest

from tests.parity.variants import Variant


@pytest.fixture(scope='package')
def float64():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def variant(request, parity_dir, record_property):
  """The golden of variants.json named by the parameter; the test's report holds the largest relative error."""
  variant = Variant(parity_dir, request.param)
  yield variant
  record_property('largest_relative_error', float(variant.worst))
  print(f'{variant.name}: largest relative error {variant.worst:.1e}')
