"""What the tests of the readers share."""

import pytest

from dgnet_jax.data.dataset import open_dataset, verify_dataset
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError


def check_error(root, *words, layout='market1501', **fields):
  """Checks that reading `root` raises a UserError that contains all words."""
  with pytest.raises(UserError) as error:
    read_layout(root, layout, **fields)
  for word in words:
    assert word in str(error.value)


def verified(data_config, workdir):
  """Opens a data set and verifies its images; returns its index."""
  index = open_dataset(data_config, workdir)
  verify_dataset(index, data_config, workdir)
  return index
