"""Cases that are left out of the long tests, because others like them are there, and together they take too long."""

import os

import pytest

EXHAUSTIVE = pytest.mark.skipif(
  'DGNET_EXHAUSTIVE' not in os.environ, reason='more of the same: set DGNET_EXHAUSTIVE=1 to run it'
)
