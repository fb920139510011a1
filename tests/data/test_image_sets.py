"""Sets of images for comparisons: folders, splits of data sets, and generated images."""

import csv

import numpy as np
import pytest

from dgnet_jax.data.image_sets import match_by_name, read_image_set
from dgnet_jax.errors import UserError
from tests.data.folders import GALLERY, QUERY, write_image, write_market


@pytest.fixture
def folder(tmp_path):
  for i, name in enumerate(('b.png', 'Anna/1.jpg', 'Anna/2.png', 'Bob/1.jpeg')):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_image(tmp_path / name, seed=i, size_hw=(20 + i, 9))
  (tmp_path / 'notes.txt').write_text('not an image')
  return tmp_path


def write_generated(folder, rows, columns=('file', 'appearance_identity')):
  (folder / 'images').mkdir(parents=True, exist_ok=True)
  with (folder / 'manifest.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(rows)
  for i, (name, *_) in enumerate(rows):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_image(folder / name, seed=i)
  return folder


def test_folder_is_read_recursively(folder, lines):
  images = read_image_set(str(folder))
  assert images.names == ('Anna/1', 'Anna/2', 'Bob/1', 'b')
  assert lines == [f'{folder}: skipped 1 entries that are not images (notes.txt)']
  assert images.identity is None and images.num_identities == 0
  assert images.sizes_hw.tolist() == [[21, 9], [22, 9], [23, 9], [20, 9]]
  assert images.size_hw is None and images.size_text == '20x9 to 23x9'


def test_identities_come_from_a_pattern(folder):
  (folder / 'b.png').unlink()
  images = read_image_set(str(folder), identity_pattern='^(?P<identity>[^/]+)/')
  assert images.num_identities == 2 and images.identity[0] == images.identity[1] != images.identity[2]


@pytest.mark.parametrize(
  ('pattern', 'message'),
  [
    ('(', 'not a regular expression'),
    ('a', 'has no group'),
    ('(?P<identity>Anna)', 'does not match 2 of 4 paths: Bob/1.j'),
  ],
)
def test_wrong_pattern_is_an_error(folder, pattern, message):
  with pytest.raises(UserError, match=message):
    read_image_set(str(folder), identity_pattern=pattern)


def test_splits_of_a_dataset_are_read_without_junk(tmp_path, lines):
  root = write_market(tmp_path)
  images = read_image_set(f'{root}:query+gallery')
  assert len(images) == len(QUERY) + len(GALLERY) - 1 and 'excluded 1 junk images' in lines[0]
  assert images.num_identities == 2 and sorted(set(images.identity)) == [0, 3, 4]
  assert images.size_hw == (20, 9) and 'Market-1501' in images.title and 'query+gallery' in images.title
  assert 'query/0003_c1s1_000151_00' in images.names
  assert len(read_image_set(f'market1501={root}:query')) == len(QUERY)
  plain = read_image_set(str(root / 'query'))  # the folder of a split is a folder like any other
  assert plain.names == tuple(name[:-4] for name in QUERY) and plain.identity is None


def test_splits_must_be_named_and_exist(tmp_path):
  root = write_market(tmp_path)
  with pytest.raises(UserError, match=f'name its splits: {root}:train'):
    read_image_set(str(root))
  with pytest.raises(UserError, match='no images of multi_query'):
    read_image_set(f'{root}:multi_query')


def test_generated_sheets_are_read_by_their_manifest(tmp_path):
  rows = [('images/0002_in_0001.png', 2), ('images/0001_in_0001.png', 1), ('images/0002_in_0003.png', 2)]
  images = read_image_set(str(write_generated(tmp_path, rows)))
  assert images.names == ('0001_in_0001', '0002_in_0001', '0002_in_0003')
  assert images.identity.tolist() == [1, 2, 2]
  (tmp_path / 'images' / '0001_in_0001.png').unlink()
  with pytest.raises(UserError, match='1 of 3 images are unusable(.|\n)*0001_in_0001.png: .*No such file'):
    read_image_set(str(tmp_path))


def test_generated_sets_are_read_by_their_manifest(tmp_path):
  columns = ('path', 'identity', 'camera', 'split')
  rows = [(f'images/{name}/{name}_{i}.png', name, 1, 'train') for i, name in enumerate(('Anna', 'Bob', 'Anna'))]
  images = read_image_set(str(write_generated(tmp_path, rows, columns)))
  assert images.names == ('Anna/Anna_0', 'Anna/Anna_2', 'Bob/Bob_1') and images.identity.tolist() == [1, 1, 2]


@pytest.mark.parametrize(
  ('rows', 'columns', 'message'),
  [
    ([('images/a.png', 1), ('images/b.png',)], ('file', 'appearance_identity'), 'rows without an image or an identity'),
    (
      [('images/a.png', 1)],
      ('file', 'identity'),
      'not a manifest.*columns file, appearance_identity or path, identity',
    ),
    ([], ('file', 'appearance_identity'), 'no images in it'),
  ],
)
def test_wrong_manifest_is_an_error(tmp_path, rows, columns, message):
  with pytest.raises(UserError, match=message):
    read_image_set(str(write_generated(tmp_path, rows, columns)))


@pytest.mark.parametrize('name', ['sheet_000.png', 'plan.json'])
def test_unfinished_generation_is_an_error(tmp_path, name):
  folder = write_generated(tmp_path, [('images/a.png', 1)])
  (folder / 'manifest.csv').rename(folder / name)
  with pytest.raises(UserError, match='did not finish'):
    read_image_set(str(folder))


def test_missing_empty_and_damaged_folders_are_errors(tmp_path):
  with pytest.raises(UserError, match='absent: no such folder'):
    read_image_set(str(tmp_path / 'absent'))
  with pytest.raises(UserError, match='no images in it'):
    read_image_set(str(tmp_path))
  (tmp_path / 'a.jpg').write_bytes(b'not an image')
  with pytest.raises(UserError, match='1 of 1 images are unusable'):
    read_image_set(str(tmp_path))


def test_images_are_matched_by_name(folder, tmp_path_factory):
  other = tmp_path_factory.mktemp('other')
  (other / 'Anna').mkdir()
  for name in ('a.png', 'b.jpg', 'Anna/2.jpg'):
    write_image(other / name)
  first, second = read_image_set(str(folder)), read_image_set(str(other))
  first_index, second_index = match_by_name(first, second)
  assert [first.names[i] for i in first_index] == [second.names[i] for i in second_index] == ['Anna/2', 'b']
  write_image(other / 'a.jpg')
  with pytest.raises(UserError, match='1 names occur with several extensions: a'):
    match_by_name(first, read_image_set(str(other)))
  disjoint = tmp_path_factory.mktemp('disjoint')
  write_image(disjoint / 'z.png')
  with pytest.raises(UserError, match='no file names in common: Anna/1, Anna/2 in .*, z in '):
    match_by_name(first, read_image_set(str(disjoint)))


def test_equal_sizes_are_one_text(tmp_path):
  write_image(tmp_path / 'a.png')
  images = read_image_set(str(tmp_path))
  assert images.size_text == '20x9'
  np.testing.assert_array_equal(images.sizes_hw, [[20, 9]])
