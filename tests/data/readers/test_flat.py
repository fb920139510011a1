"""Market-1501's layout and similar ones: names, splits, and what is skipped or wrong."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.data.layouts import LAYOUTS
from dgnet_jax.data.readers import flat
from dgnet_jax.data.readers.listing import IMAGE_SUFFIXES
from dgnet_jax.data.registry import read_layout
from tests.data.fakes import SMALL, write_fake
from tests.data.folders import QUERY, TRAIN, write_image, write_images, write_market
from tests.data.reading import check_error

FLAT = [name for name, layout in LAYOUTS.items() if layout.reader == 'flat']


@pytest.mark.parametrize('layout', FLAT)
def test_example_names_match(layout):
  assert flat.match_name(LAYOUTS[layout], LAYOUTS[layout].example)


@given(st.integers(-1, 9999), st.integers(0, 1000), st.integers(1, 99), st.integers(0, 999999), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_names_of_market1501_match_no_other_layout(identity, camera, sequence, frame, box):
  digits = f'{identity:04d}' if identity >= 0 else str(identity)
  name = f'{digits}_c{camera}s{sequence}_{frame:06d}_{box:02d}.jpg'
  match = flat.match_name(LAYOUTS['market1501'], name)
  assert match and int(match['identity']) == identity and int(match['camera']) == camera
  assert not any(flat.match_name(LAYOUTS[other], name) for other in ('dukemtmc', 'cuhk03', 'veri776'))


@pytest.mark.parametrize(
  ('layout', 'name'),
  [
    ('market1501', '0002_c{}s1_000451_03'),
    ('dukemtmc', '0005_c{}_f0046985'),
    ('cuhk03', '0001_c{}_1'),
    ('veri776', '0001_c{}_00016450_0'),
  ],
)
@pytest.mark.parametrize('camera', ['3', '12', '007', '1234'])
def test_cameras_have_numbers_of_any_width(tmp_path, layout, name, camera):
  base = tmp_path / 'detected' if LAYOUTS[layout].variants else tmp_path
  write_images(base, *(f'{folders[0]}/{name.format(camera)}.jpg' for folders in LAYOUTS[layout].folders.values()))
  index = read_layout(tmp_path)
  assert index.name == layout
  assert {int(camera) for split in index.splits.values() for camera in split.camera} == {int(camera)}


def test_splits_classes_and_cameras_are_read(tmp_path, lines):
  root = write_market(tmp_path, multi_query=('0003_c1s1_000152_00.jpg',))
  index = read_layout(root, 'market1501')
  assert index.train.paths == tuple(str(tmp_path / 'bounding_box_train' / name) for name in sorted(TRAIN))
  np.testing.assert_array_equal(index.train.identity, [2, 2, 7, 10, 10, 10])
  np.testing.assert_array_equal(index.train.camera, [1, 3, 2, 1, 6, 6])
  np.testing.assert_array_equal(index.train.classes, [0, 0, 1, 2, 2, 2])
  assert index.class_of == {2: 0, 7: 1, 10: 2} and index.num_identities == 3 and index.num_cameras == 5
  np.testing.assert_array_equal(index.gallery.identity, [-1, 0, 3, 4])
  assert len(index.query) == 2 and len(index.multi_query) == 1 and index.identity_names[2] == '0002'
  assert {x.dtype for x in (index.train.identity, index.train.camera, index.train.classes)} == {np.dtype(np.int32)}
  assert lines == []


def test_other_files_are_skipped_with_a_warning(tmp_path, lines):
  folder = write_market(tmp_path) / 'bounding_box_train'
  for name in ('Thumbs.db', '.DS_Store', '._0002_c1s1_000451_03.jpg', 'readme.txt'):
    (folder / name).write_bytes(b'')
  (folder / 'folder.jpg').mkdir()
  index = read_layout(tmp_path)
  assert len(index.train) == len(TRAIN)
  assert len(lines) == 1 and 'skipped 5 entries' in lines[0] and 'Thumbs.db' in lines[0] and str(folder) in lines[0]


def test_junk_and_distractors_are_dropped_from_train_and_query(tmp_path, lines):
  unidentified = ('0000_c1s1_000001_00.jpg', '-1_c1s1_000001_00.jpg')
  write_market(tmp_path, train=TRAIN + unidentified, query=QUERY + unidentified)
  index = read_layout(tmp_path)
  assert len(index.train) == len(TRAIN) and len(index.query) == len(QUERY)
  assert [line.count('dropped 2 images of identity -1 or 0') for line in lines] == [1, 1]


@pytest.mark.parametrize('split', ['train', 'query', 'gallery'])
def test_split_without_folder_is_empty(tmp_path, split):
  (write_market(tmp_path) / LAYOUTS['market1501'].folders[split][0]).rename(tmp_path / 'other')
  index = read_layout(tmp_path, 'market1501')
  assert [name for name in ('train', 'query', 'gallery') if not len(index.splits[name])] == [split]


def test_root_without_any_split_is_an_error(tmp_path):
  check_error(tmp_path, 'none of the folders of Market-1501 exists: bounding_box_train, query')


@pytest.mark.parametrize('split', ['train', 'query', 'gallery'])
def test_empty_folder_is_an_error(tmp_path, split):
  folder = LAYOUTS['market1501'].folders[split][0]
  check_error(write_market(tmp_path, **{split: ()}), str(tmp_path / folder), 'no images')


def test_query_of_junk_only_is_an_error(tmp_path):
  check_error(write_market(tmp_path, query=('-1_c1s1_000001_00.jpg',)), 'all images are junk or distractors')


def test_wrong_names_are_listed(tmp_path):
  folder = write_market(tmp_path) / 'query'
  for i in range(7):
    write_image(folder / f'person{i}.jpg')
  check_error(tmp_path, '7 of 9', 'person0.jpg', 'person4.jpg', 'and 2 more', str(folder))


def test_identity_below_junk_is_a_wrong_name(tmp_path):
  check_error(write_market(tmp_path, train=('-2_c1s1_000001_00.jpg',)), '-2_c1s1_000001_00.jpg')


def test_boxes_select_the_variant_of_cuhk03(tmp_path):
  write_fake(tmp_path, 'cuhk03')
  labeled = tmp_path / 'labeled' / 'bounding_box_train'
  write_images(labeled, '0009_c2_1.jpg')
  index = read_layout(tmp_path)
  assert (index.variant, len(index.train)) == ('detected', SMALL['train'][0])
  index = read_layout(tmp_path, boxes='labeled')
  assert index.variant == 'labeled' and index.root == str(labeled.parent) and len(index.train) == 1
  assert read_layout(tmp_path / 'labeled').variant == 'labeled'  # the root decides, not the config


def test_name_lists_of_veri_select_images(tmp_path, lines):
  folder = write_fake(tmp_path, 'veri776') / 'image_train'
  names = sorted(path.name for path in folder.iterdir())
  (tmp_path / 'name_train.txt').write_text(
    '\r\n'.join(names[:3]) + '\r\n', encoding='utf-8-sig'
  )  # as Windows' editors save it
  assert len(read_layout(tmp_path).train) == 3
  assert 'skipped 3 entries' in lines[0] and names[3] in lines[0]
  (tmp_path / 'name_train.txt').write_text('0009_c001_00000001_0.jpg\n')
  check_error(tmp_path, '1 of 1 images are not in', '0009_c001_00000001_0.jpg', 'name_train.txt', layout='veri776')


@pytest.mark.parametrize('suffix', [*IMAGE_SUFFIXES, '.JPG', '.Png'])
def test_every_image_suffix_is_read(tmp_path, suffix):
  folder = write_market(tmp_path) / 'query'
  (folder / QUERY[0]).rename(folder / (QUERY[0].removesuffix('.jpg') + suffix))
  assert len(read_layout(tmp_path).query) == 2
