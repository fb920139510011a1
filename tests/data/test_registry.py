"""Every layout of the registry is detected and read, and confusions are explained."""

import re

import numpy as np
import pytest

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.layouts import LAYOUTS, SPLITS
from dgnet_jax.data.registry import READERS, detect_layout, read_dataset, read_layout
from dgnet_jax.errors import UserError
from tests.data.fakes import SMALL, write_fake
from tests.data.folders import write_market
from tests.data.reading import check_error

PUBLIC = ('market1501', 'dukemtmc', 'msmt17', 'cuhk03', 'veri776', 'mars')


def test_rows_are_complete():
  for name, row in LAYOUTS.items():
    assert row.name == name and row.reader in READERS and row.title and row.example
    assert row.folders.keys() <= set(SPLITS)
    assert {key.split(',')[0] for key in row.counts} <= set(SPLITS)


@pytest.mark.parametrize('layout', PUBLIC)
def test_public_layouts_are_detected_and_read(tmp_path, layout):
  root = write_fake(tmp_path, layout)
  assert detect_layout(root).name == layout
  index = read_layout(root)
  assert index.name == layout
  for split, (images, identities) in SMALL.items():
    assert len(index.splits[split]) == images and len(index.splits[split].class_of) == identities
    assert all(path.startswith(str(root)) for path in index.splits[split].paths)
  assert set(index.query.identity) == set(index.gallery.identity)
  assert not set(index.train.identity) & set(index.gallery.identity)
  assert set(np.concatenate([s.camera for s in index.splits.values()])) == set(index.camera_names)


# MSMT17's training part also matches layout folders.
@pytest.mark.parametrize(
  ('layout', 'wrong'),
  [
    (layout, wrong)
    for layout in PUBLIC
    for wrong in sorted(LAYOUTS.keys() - {layout, 'synthetic'} - ({'folders'} if layout == 'msmt17' else set()))
  ],
)
def test_error_of_a_wrong_layout_names_the_right_one(tmp_path, layout, wrong):
  check_error(write_fake(tmp_path, layout), f': layout {layout}', str(tmp_path), layout=wrong)


def test_error_of_an_unknown_folder_lists_all_layouts(tmp_path):
  check_error(
    tmp_path, 'unknown layout', 'dukemtmc: DukeMTMC-reID', 'train/Anna/door_3.jpg', 'data.identity_pattern', layout=''
  )
  check_error(tmp_path / 'nowhere', 'no such folder', layout='')


def test_missing_root_is_named(tmp_path):
  check_error(tmp_path / 'nowhere', str(tmp_path / 'nowhere'), 'no such folder')


def test_error_of_a_root_one_level_off_names_the_right_one(tmp_path):
  inner = tmp_path / 'Market-1501-v15.09.15'
  inner.mkdir()
  write_market(inner)
  check_error(tmp_path, f'Did you mean {inner}?')
  check_error(inner / 'query', f'Did you mean {inner}?')


@pytest.mark.parametrize(('root', 'hint'), [('nowhere', '(data.root)'), ('', 'data.layout=market1501')])
def test_only_errors_of_a_config_name_its_fields(tmp_path, root, hint):
  """Commands that take the folder as an argument have no flags of these names."""
  write_market(tmp_path)
  with pytest.raises(UserError, match=re.escape(hint)):
    read_dataset(DataConfig(root=str(tmp_path / root), layout='msmt17'))
  with pytest.raises(UserError) as caught:
    read_layout(tmp_path / root, 'msmt17')
  assert 'data.' not in str(caught.value).replace(str(tmp_path), '')


def test_config_selects_layout_and_root(tmp_path):
  root = str(write_market(tmp_path))
  assert read_dataset(DataConfig(root=root)).root == read_dataset(DataConfig(), tmp_path).root == root
  assert read_dataset(DataConfig(root=root)).name == 'market1501'
  assert read_dataset(DataConfig(root=root, layout='synthetic')).name == 'synthetic'


def test_real_crops_are_read(shared_data_dir):
  index = read_layout(shared_data_dir / 'market_mini')
  assert (len(index.train), index.num_identities, len(index.query), len(index.gallery)) == (58, 58, 5, 7)
  assert index.num_cameras == 6 and 0 in index.gallery.identity
  index = read_layout(shared_data_dir / 'duke_mini')
  assert (index.name, len(index.train), index.num_identities) == ('dukemtmc', 20, 20) and not len(index.query)
  index = read_layout(shared_data_dir / 'msmt17_mini')
  assert (index.name, len(index.train), index.num_identities) == ('msmt17', 15, 14)
  assert max(index.camera_names) == 15 and index.identity_names[1] == 'train 0000'
