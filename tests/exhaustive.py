"""Cases that are left out of the long tests, because all of them together take too long."""

import os

import pytest

EXHAUSTIVE = pytest.mark.skipif('DGNET_EXHAUSTIVE' not in os.environ, reason='set DGNET_EXHAUSTIVE=1 to run it')
