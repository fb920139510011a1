"""Parity is shown in float64."""

import jax
import pytest


@pytest.fixture(scope='package')
def float64():
  with jax.enable_x64(True):
    yield
