"""What the tests of the readers share."""

import pytest

from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError


def check_error(root, *words, layout='market1501', **fields):
  """Checks that reading `root` raises a UserError that contains all words."""
  with pytest.raises(UserError) as error:
    read_layout(root, layout, **fields)
  for word in words:
    assert word in str(error.value)
