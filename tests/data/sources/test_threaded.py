"""What the threads keep, and what becomes of damaged files."""

import itertools

import numpy as np
import pytest

from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.errors import UserError
from tests.data.folders import TRAIN, write_market
from tests.data.sources.test_sources import make_config


@pytest.fixture
def split(tmp_path):
  return read_layout(write_market(tmp_path)).train


def test_files_are_kept_until_the_cache_is_full(split, tmp_path):
  config, lines = make_config('threads'), []
  plenty = make_source(split, config)
  before = list(itertools.islice(plenty.batches(0), 30))
  assert not lines
  config.data.cache_mib = 0.001
  little = make_source(split, config)
  for one, other in zip(before, little.batches(0), strict=False):
    np.testing.assert_array_equal(one.image, other.image)
  assert len(lines) == 1 and f'of {len(split)} files are kept' in lines[0]
  for name in TRAIN:
    (tmp_path / 'bounding_box_train' / name).unlink()
  for one, other in zip(before, plenty.batches(0), strict=False):
    np.testing.assert_array_equal(one.positive, other.positive)
  with pytest.raises(UserError, match='bounding_box_train.*unreadable'):
    list(itertools.islice(little.batches(0), 30))


def test_a_damaged_file_is_named(split, tmp_path):
  (tmp_path / 'bounding_box_train' / TRAIN[0]).write_bytes(b'GIF89a')
  with pytest.raises(UserError, match=TRAIN[0]):
    list(itertools.islice(make_source(split, make_config('threads')).batches(0), 30))


def test_batches_can_be_left_at_any_time(split):
  batches = make_source(split, make_config('threads')).batches(0)
  next(batches)
  batches.close()
