"""Market-1501's folders: what is read, what is skipped, and what is said about what is wrong."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.config import UserError, default_config
from dgnet_jax.data.index import MARKET1501_NAME, name_some, read_dataset, read_market1501
from tests.data.folders import QUERY, TRAIN, write_market, write_picture


def test_splits_classes_and_cameras(tmp_path):
  lines = []
  index = read_market1501(write_market(tmp_path, multi_query=('0003_c1s1_000152_00.jpg',)), log=lines.append)
  assert index.train.paths == tuple(str(tmp_path / 'bounding_box_train' / name) for name in sorted(TRAIN))
  np.testing.assert_array_equal(index.train.identity, [2, 2, 7, 10, 10, 10])
  np.testing.assert_array_equal(index.train.camera, [1, 3, 2, 1, 6, 6])
  np.testing.assert_array_equal(index.train.classes, [0, 0, 1, 2, 2, 2])
  assert index.class_of == {2: 0, 7: 1, 10: 2} and index.num_identities == 3 and index.num_cameras == 5
  np.testing.assert_array_equal(index.gallery.identity, [-1, 0, 3, 4])
  assert len(index.query) == 2 and len(index.multi_query) == 1
  assert {x.dtype for x in (index.train.identity, index.train.camera, index.train.classes)} == {np.dtype(np.int32)}
  assert lines == []


def test_without_boxes_for_multi_query(tmp_path):
  index = read_market1501(write_market(tmp_path))
  assert len(index.multi_query) == 0 and len(index.multi_query.identity) == 0


def test_config_names_layout_and_root(tmp_path):
  config = default_config().data
  config.root = str(write_market(tmp_path))
  assert read_dataset(config).root == read_dataset(config, tmp_path).root == str(tmp_path)
  assert read_dataset(config).name == 'market1501'


def test_stray_files_are_counted(tmp_path):
  folder = write_market(tmp_path) / 'bounding_box_train'
  for name in ('Thumbs.db', '.DS_Store', '._0002_c1s1_000451_03.jpg', 'readme.txt'):
    (folder / name).write_bytes(b'')
  (folder / 'folder.jpg').mkdir()
  lines = []
  index = read_market1501(tmp_path, log=lines.append)
  assert len(index.train) == len(TRAIN)
  assert len(lines) == 1 and '5 entries' in lines[0] and 'Thumbs.db' in lines[0] and str(folder) in lines[0]


def test_nobody_is_trained_on_or_asked_for(tmp_path):
  nobody = ('0000_c1s1_000001_00.jpg', '-1_c1s1_000001_00.jpg')
  lines = []
  index = read_market1501(write_market(tmp_path, train=TRAIN + nobody, query=QUERY + nobody), log=lines.append)
  assert len(index.train) == len(TRAIN) and len(index.query) == len(QUERY)
  assert [line.count('2 pictures of identity -1 or 0') for line in lines] == [1, 1]


def check_error(root, *words):
  with pytest.raises(UserError) as error:
    read_market1501(root, log=lambda line: None)
  for word in words:
    assert word in str(error.value)


def test_missing_root(tmp_path):
  check_error(tmp_path / 'nowhere', str(tmp_path / 'nowhere'), 'data.root')


@pytest.mark.parametrize('folder', ['bounding_box_train', 'query', 'bounding_box_test'])
def test_missing_folder(tmp_path, folder):
  (write_market(tmp_path) / folder).rename(tmp_path / 'other')
  check_error(tmp_path, f'no folder {folder};')


def test_root_one_level_off_is_recognised(tmp_path):
  inner = tmp_path / 'Market-1501-v15.09.15'
  inner.mkdir()
  write_market(inner)
  check_error(tmp_path, f'data.root={inner}?')
  check_error(inner / 'query', f'data.root={inner}?')


@pytest.mark.parametrize('split', ['train', 'query', 'gallery'])
def test_empty_split(tmp_path, split):
  folder = {'train': 'bounding_box_train', 'gallery': 'bounding_box_test'}.get(split, split)
  check_error(write_market(tmp_path, **{split: ()}), str(tmp_path / folder), 'no pictures')


def test_split_with_nobody_in_it(tmp_path):
  check_error(write_market(tmp_path, query=('-1_c1s1_000001_00.jpg',)), 'no pictures of a known person')


def test_wrong_names_are_named(tmp_path):
  folder = write_market(tmp_path) / 'query'
  for i in range(7):
    write_picture(folder / f'person{i}.jpg')
  check_error(tmp_path, '7 of 9', 'person0.jpg', 'person4.jpg', 'and 2 more', str(folder))
  check_error(write_market_at(tmp_path / 'b', train=('-2_c1s1_000001_00.jpg',)), '-2_c1s1_000001_00.jpg')


def write_market_at(root, **names):
  root.mkdir()
  return write_market(root, **names)


@given(st.integers(-1, 9999), st.integers(1, 9), st.integers(1, 9), st.integers(0, 999999), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_names(identity, camera, sequence, frame, box):
  shown = f'{identity:04d}' if identity >= 0 else str(identity)
  match = MARKET1501_NAME.fullmatch(f'{shown}_c{camera}s{sequence}_{frame:06d}_{box:02d}.jpg')
  assert match and int(match['identity']) == identity and int(match['camera']) == camera


def test_long_lists_are_cut():
  assert name_some(['a', 'b']) == 'a, b'
  assert name_some(list('abcdefg')) == 'a, b, c, d, e, and 2 more'


def test_real_crops(shared_data_dir):
  index = read_market1501(shared_data_dir / 'market_mini')
  assert (len(index.train), index.num_identities, len(index.query), len(index.gallery)) == (58, 58, 5, 7)
  assert index.num_cameras == 6 and 0 in index.gallery.identity
