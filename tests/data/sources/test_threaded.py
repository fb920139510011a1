"""The threaded source: its cache of encoded files, and damaged files."""

import itertools

import numpy as np
import pytest

from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources import threaded
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.errors import UserError
from tests.data.folders import TRAIN, write_market
from tests.data.sources.test_sources import make_config


@pytest.fixture
def split(tmp_path):
  return read_layout(write_market(tmp_path)).train


def take(source, count=30):
  return list(itertools.islice(source.batches(0), count))


def test_cached_files_are_not_read_again(split, tmp_path, lines):
  source = make_source(split, make_config('threads'))
  batches = take(source)
  assert not lines
  for name in TRAIN:
    (tmp_path / 'bounding_box_train' / name).unlink()
  for batch, again in zip(batches, take(source), strict=True):
    np.testing.assert_array_equal(batch.positive, again.positive)


def test_a_full_cache_is_logged_once_and_other_files_are_read_again(split, tmp_path, lines, monkeypatch):
  read, read_encoded = [], threaded.read_encoded
  monkeypatch.setattr(threaded, 'read_encoded', lambda path: read.append(path) or read_encoded(path))
  expected = take(make_source(split, make_config('threads')))
  read.clear()
  source = make_source(split, make_config('threads', cache_mib=1))
  source._free_bytes = 1000  # one or two files
  for batch, other in zip(take(source), expected, strict=True):
    np.testing.assert_array_equal(batch.image, other.image)
  assert len(read) > 2 * len(split)
  assert len(lines) == 1 and f'of {len(split)} files are kept in memory' in lines[0]
  for name in TRAIN:
    (tmp_path / 'bounding_box_train' / name).unlink()
  with pytest.raises(UserError, match='bounding_box_train.*unreadable'):
    take(source)


def test_a_damaged_file_is_named(split, tmp_path):
  (tmp_path / 'bounding_box_train' / TRAIN[0]).write_bytes(b'GIF89a')
  with pytest.raises(UserError, match=TRAIN[0]):
    take(make_source(split, make_config('threads')))


def test_batches_can_be_closed_at_any_time(split):
  batches = make_source(split, make_config('threads')).batches(0)
  next(batches)
  batches.close()
