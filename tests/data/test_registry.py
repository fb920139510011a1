"""Every layout of the registry: what is read, what is skipped, and what is said about what is wrong."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.data.layouts import LAYOUTS, SPLITS
from dgnet_jax.data.readers import flat
from dgnet_jax.data.readers.listing import IMAGE_SUFFIXES
from dgnet_jax.data.registry import READERS, read_dataset, read_layout, recognise
from dgnet_jax.errors import UserError
from tests.data.fakes import SMALL, write_fake
from tests.data.folders import QUERY, TRAIN, write_image, write_market

FLAT = ('market1501', 'dukemtmc', 'cuhk03', 'veri776')


def quiet(line):
  """A log that nobody reads."""


def read(root, layout='', **fields):
  return read_layout(root, layout, **fields)


def check_error(root, *words, layout='market1501', **fields):
  with pytest.raises(UserError) as error:
    read(root, layout, **fields)
  for word in words:
    assert word in str(error.value)


def fill(root, *paths):
  for seed, path in enumerate(paths):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    write_image(root / path, seed=seed)
  return root


class TestRegistry:
  def test_rows_are_whole(self):
    for name, row in LAYOUTS.items():
      assert row.name == name and row.reader in READERS and row.title and row.example
      assert row.folders.keys() <= set(SPLITS)
      assert {key.split(',')[0] for key in row.counts} <= set(SPLITS)

  @pytest.mark.parametrize('layout', [name for name, row in LAYOUTS.items() if row.reader == 'flat'])
  def test_examples_are_names(self, layout):
    assert flat._match(LAYOUTS[layout], LAYOUTS[layout].example)

  @pytest.mark.parametrize('layout', ['market1501', 'dukemtmc', 'msmt17', 'cuhk03', 'veri776'])
  def test_layouts_are_recognised_and_read(self, tmp_path, layout):
    root = write_fake(tmp_path, layout)
    assert recognise(root).name == layout
    index = read(root)
    assert index.name == layout
    for split, (images, people) in SMALL.items():
      assert len(index.splits[split]) == images and len(index.splits[split].class_of) == people
      assert all(path.startswith(str(root)) for path in index.splits[split].paths)
    assert set(index.query.identity) == set(index.gallery.identity)
    assert not set(index.train.identity) & set(index.gallery.identity)
    assert set(np.concatenate([s.camera for s in index.splits.values()])) == set(index.camera_names)

  # MSMT17's training part is also what layout folders asks for.
  @pytest.mark.parametrize(
    ('layout', 'wrong'),
    [
      (layout, wrong)
      for layout in ('market1501', 'dukemtmc', 'msmt17', 'cuhk03', 'veri776')
      for wrong in sorted(LAYOUTS.keys() - {layout, 'synthetic'} - ({'folders'} if layout == 'msmt17' else set()))
    ],
  )
  def test_another_layout_is_named(self, tmp_path, layout, wrong):
    check_error(write_fake(tmp_path, layout), f'data.layout={layout}', str(tmp_path), layout=wrong)

  def test_an_unknown_folder_lists_what_is_known(self, tmp_path):
    check_error(tmp_path, 'no known layout', 'dukemtmc: DukeMTMC-reID', 'train/Anna/door_3.jpg', layout='')
    check_error(tmp_path / 'nowhere', 'no such folder', layout='')

  def test_real_crops(self, shared_data_dir):
    index = read(shared_data_dir / 'market_mini')
    assert (len(index.train), index.num_identities, len(index.query), len(index.gallery)) == (58, 58, 5, 7)
    assert index.num_cameras == 6 and 0 in index.gallery.identity
    index = read(shared_data_dir / 'duke_mini')
    assert (index.name, len(index.train), index.num_identities) == ('dukemtmc', 20, 20) and not len(index.query)
    index = read(shared_data_dir / 'msmt17_mini')
    assert (index.name, len(index.train), index.num_identities) == ('msmt17', 15, 14)
    assert max(index.camera_names) == 15 and index.identity_names[1] == 'train 0000'


class TestFlat:
  def test_splits_classes_and_cameras(self, tmp_path, lines):
    lines.clear()
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

  def test_config_names_layout_and_root(self, tmp_path):
    config = default_config().data
    config.root = str(write_market(tmp_path))
    assert read_dataset(config).root == read_dataset(config, tmp_path).root == str(tmp_path)
    assert read_dataset(config).name == 'market1501'
    config.layout = 'synthetic'
    assert read_dataset(config).name == 'synthetic'

  @given(st.integers(-1, 9999), st.integers(1, 9), st.integers(1, 9), st.integers(0, 999999), st.integers(0, 99))
  @settings(max_examples=50, deadline=None)
  def test_names_of_market1501(self, identity, camera, sequence, frame, box):
    shown = f'{identity:04d}' if identity >= 0 else str(identity)
    name = f'{shown}_c{camera}s{sequence}_{frame:06d}_{box:02d}.jpg'
    match = flat._match(LAYOUTS['market1501'], name)
    assert match and int(match['identity']) == identity and int(match['camera']) == camera
    assert not any(flat._match(LAYOUTS[other], name) for other in FLAT[1:])

  def test_stray_files_are_counted(self, tmp_path, lines):
    folder = write_market(tmp_path) / 'bounding_box_train'
    for name in ('Thumbs.db', '.DS_Store', '._0002_c1s1_000451_03.jpg', 'readme.txt'):
      (folder / name).write_bytes(b'')
    (folder / 'folder.jpg').mkdir()
    lines.clear()
    index = read_layout(tmp_path)
    assert len(index.train) == len(TRAIN)
    assert len(lines) == 1 and '5 entries' in lines[0] and 'Thumbs.db' in lines[0] and str(folder) in lines[0]

  def test_nobody_is_trained_on_or_asked_for(self, tmp_path, lines):
    nobody = ('0000_c1s1_000001_00.jpg', '-1_c1s1_000001_00.jpg')
    lines.clear()
    write_market(tmp_path, train=TRAIN + nobody, query=QUERY + nobody)
    index = read_layout(tmp_path)
    assert len(index.train) == len(TRAIN) and len(index.query) == len(QUERY)
    assert [line.count('2 images of identity -1 or 0') for line in lines] == [1, 1]

  def test_missing_root(self, tmp_path):
    check_error(tmp_path / 'nowhere', str(tmp_path / 'nowhere'), 'data.root')

  @pytest.mark.parametrize('split', ['train', 'query', 'gallery'])
  def test_a_missing_folder_leaves_its_split_empty(self, tmp_path, split):
    (write_market(tmp_path) / LAYOUTS['market1501'].folders[split][0]).rename(tmp_path / 'other')
    index = read(tmp_path, 'market1501')
    assert [name for name in ('train', 'query', 'gallery') if not len(index.splits[name])] == [split]

  def test_no_folder_at_all(self, tmp_path):
    check_error(tmp_path, 'none of the folders that Market-1501 has: bounding_box_train, query')

  def test_root_one_level_off_is_recognised(self, tmp_path):
    inner = tmp_path / 'Market-1501-v15.09.15'
    inner.mkdir()
    write_market(inner)
    check_error(tmp_path, f'data.root={inner}?')
    check_error(inner / 'query', f'data.root={inner}?')

  @pytest.mark.parametrize('split', ['train', 'query', 'gallery'])
  def test_empty_split(self, tmp_path, split):
    folder = LAYOUTS['market1501'].folders[split][0]
    check_error(write_market(tmp_path, **{split: ()}), str(tmp_path / folder), 'no images')

  def test_split_with_nobody_in_it(self, tmp_path):
    check_error(write_market(tmp_path, query=('-1_c1s1_000001_00.jpg',)), 'no images of a known person')

  def test_wrong_names_are_named(self, tmp_path):
    folder = write_market(tmp_path) / 'query'
    for i in range(7):
      write_image(folder / f'person{i}.jpg')
    check_error(tmp_path, '7 of 9', 'person0.jpg', 'person4.jpg', 'and 2 more', str(folder))

  def test_identities_below_junk(self, tmp_path):
    check_error(write_market(tmp_path, train=('-2_c1s1_000001_00.jpg',)), '-2_c1s1_000001_00.jpg')

  def test_boxes_of_cuhk03(self, tmp_path):
    write_fake(tmp_path, 'cuhk03')
    labeled = tmp_path / 'labeled' / 'bounding_box_train'
    fill(labeled, '0009_c2_1.jpg')
    assert (read(tmp_path).variant, len(read(tmp_path).train)) == ('detected', SMALL['train'][0])
    index = read(tmp_path, boxes='labeled')
    assert index.variant == 'labeled' and index.root == str(labeled.parent) and len(index.train) == 1
    assert read(tmp_path / 'labeled').variant == 'labeled'  # whatever the config says

  def test_lists_of_veri(self, tmp_path, lines):
    folder = write_fake(tmp_path, 'veri776') / 'image_train'
    names = sorted(path.name for path in folder.iterdir())
    (tmp_path / 'name_train.txt').write_text('\n'.join(names[:3]) + '\n')
    lines.clear()
    assert len(read_layout(tmp_path).train) == 3
    assert '3 entries' in lines[0] and names[3] in lines[0]
    (tmp_path / 'name_train.txt').write_text('0009_c001_00000001_0.jpg\n')
    check_error(tmp_path, '1 of 1 images are not in', '0009_c001_00000001_0.jpg', 'name_train.txt', layout='veri776')

  @pytest.mark.parametrize('suffix', [*IMAGE_SUFFIXES, '.JPG', '.Png'])
  def test_any_extension_of_a_image(self, tmp_path, suffix):
    folder = write_market(tmp_path) / 'query'
    (folder / QUERY[0]).rename(folder / (QUERY[0].removesuffix('.jpg') + suffix))
    assert len(read(tmp_path).query) == 2


class TestMsmt17:
  @pytest.mark.parametrize('version', [1, 2])
  def test_label_0_is_a_person_and_labels_restart(self, tmp_path, version):
    index = read(write_fake(tmp_path, 'msmt17', version=version))
    assert index.class_of == {1: 0, 2: 1, 3: 2} and set(index.gallery.identity) == {4, 5}
    assert index.identity_names[1] == 'train 0000' and index.identity_names[4] == 'test 0000'
    assert ('mask_train_v2' in index.train.paths[0]) == (version == 2)

  def test_validation_can_be_kept_out(self, tmp_path):
    root = write_fake(tmp_path, 'msmt17', {'train': (20, 4), 'query': (2, 2), 'gallery': (4, 2)})
    assert len(read(root).train) == 20
    index = read(root, train_with_val=False)
    assert len(index.train) == 18 and index.variant == 'without list_val' and index.num_identities == 4

  def test_parts_that_are_not_there(self, tmp_path, lines):
    lines.clear()
    (write_fake(tmp_path, 'msmt17') / 'test').rename(tmp_path / 'elsewhere')
    index = read_layout(tmp_path)
    assert len(index.train) == 6 and not len(index.query) and len(lines) == 2 and 'list_query.txt' in lines[0]

  @pytest.mark.parametrize('line', ['0000/0000_000_01_x_0.jpg', '0000/x.jpg one', '1'])
  def test_wrong_lines(self, tmp_path, line):
    path = write_fake(tmp_path, 'msmt17') / 'list_query.txt'
    path.write_text(f'{path.read_text()}\n{line}\n')
    check_error(tmp_path, f'{path}, line 4', 'relative/path.jpg label', layout='msmt17')

  def test_wrong_names_and_empty_lists(self, tmp_path):
    path = write_fake(tmp_path, 'msmt17') / 'list_query.txt'
    path.write_text('0000/x.jpg 3\n')
    check_error(tmp_path, '1 of 1 names', '0000/x.jpg', layout='msmt17')
    path.write_text('\n')
    check_error(tmp_path, 'no images in the lists of query', layout='msmt17')
