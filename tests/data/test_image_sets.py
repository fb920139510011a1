"""What sets of images the comparison takes, and how each is read."""

import csv

import numpy as np
import pytest

from dgnet_jax.data.image_sets import partners, read_image_set
from dgnet_jax.errors import UserError
from tests.data.folders import GALLERY, QUERY, write_image, write_market


def read(text, **options):
  lines = []
  found = read_image_set(str(text), **options)
  return found, lines


@pytest.fixture
def folder(tmp_path):
  for i, name in enumerate(('b.png', 'Anna/1.jpg', 'Anna/2.png', 'Bob/1.jpeg')):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_image(tmp_path / name, seed=i, size_hw=(20 + i, 9))
  (tmp_path / 'notes.txt').write_text('no image')
  return tmp_path


def write_generated(folder, rows, columns=('file', 'appearance_identity')):
  (folder / 'images').mkdir(parents=True, exist_ok=True)
  with (folder / 'manifest.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(rows)
  for i, (name, *_) in enumerate(rows):
    write_image(folder / name, seed=i)
  return folder


def test_a_folder(folder):
  found, lines = read(folder)
  assert found.names == ('Anna/1', 'Anna/2', 'Bob/1', 'b') and not lines
  assert found.identity is None and found.num_people == 0
  assert found.sizes_hw.tolist() == [[21, 9], [22, 9], [23, 9], [20, 9]]
  assert found.size_hw is None and found.size_text == '20x9 to 23x9'


def test_people_by_a_pattern(folder):
  (folder / 'b.png').unlink()
  found, _ = read(folder, identity_pattern='^(?P<identity>[^/]+)/')
  assert found.num_people == 2 and found.identity[0] == found.identity[1] != found.identity[2]
  wrong = {'(': 'no regular expression', 'a': 'no group', '(?P<identity>Anna)': '1 of 3.*Bob/1.j'}
  for pattern, message in wrong.items():
    with pytest.raises(UserError, match=message):
      read(folder, identity_pattern=pattern)


def test_splits_of_a_data_set(tmp_path):
  root = write_market(tmp_path)
  found, lines = read(f'{root}:query+gallery')
  assert len(found) == len(QUERY) + len(GALLERY) - 1 and '1 images of junk left out' in lines[0]
  assert found.num_people == 2 and sorted(set(found.identity)) == [0, 3, 4]
  assert found.size_hw == (20, 9) and 'Market-1501' in found.title and 'query+gallery' in found.title
  assert 'query/0003_c1s1_000151_00' in found.names
  named, _ = read(f'market1501={root}:query')
  assert len(named) == len(QUERY)
  whole, _ = read(root / 'query')  # a folder of images like any
  assert whole.names == tuple(name[:-4] for name in QUERY) and whole.identity is None
  with pytest.raises(UserError, match=f'say which part: {root}:train'):
    read(root)
  with pytest.raises(UserError, match='no images of multi_query'):
    read(f'{root}:multi_query')


def test_what_a_run_generated(tmp_path):
  rows = [('images/0002_in_0001.png', 2), ('images/0001_in_0001.png', 1), ('images/0002_in_0003.png', 2)]
  found, _ = read(write_generated(tmp_path, rows))
  assert found.names == ('0001_in_0001', '0002_in_0001', '0002_in_0003')
  assert found.identity.tolist() == [1, 2, 2]
  (tmp_path / 'images' / '0001_in_0001.png').unlink()
  with pytest.raises(UserError, match='1 of 3 images are unusable(.|\n)*0001_in_0001.png: .*No such file'):
    read(tmp_path)


def test_what_a_run_generated_in_bulk(tmp_path):
  columns = ('path', 'identity', 'camera', 'split')
  rows = [(f'images/{who}/{who}_{i}.png', who, 1, 'train') for i, who in enumerate(('Anna', 'Bob', 'Anna'))]
  for name, *_ in rows:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
  found, _ = read(write_generated(tmp_path, rows, columns))
  assert found.names == ('Anna/Anna_0', 'Anna/Anna_2', 'Bob/Bob_1') and found.identity.tolist() == [1, 1, 2]


def test_what_is_wrong_is_told(tmp_path):
  with pytest.raises(UserError, match='absent: no such folder'):
    read(tmp_path / 'absent')
  with pytest.raises(UserError, match='no images in it'):
    read(tmp_path)
  with pytest.raises(UserError, match='rows without an image or a person'):
    read(write_generated(tmp_path / 'nobody', [('images/a.png', 1), ('images/b.png',)]))
  with pytest.raises(UserError, match='no manifest.*columns file, appearance_identity or path, identity'):
    read(write_generated(tmp_path / 'columns', [('images/a.png', 1)], ('file', 'identity')))
  with pytest.raises(UserError, match='no images in it'):
    read(write_generated(tmp_path / 'empty', []))
  unfinished = write_generated(tmp_path / 'unfinished', [('images/a.png', 1)])
  for other in ('sheet_000.png', 'plan.json'):
    next(path for path in unfinished.iterdir() if path.is_file()).rename(unfinished / other)
    with pytest.raises(UserError, match='did not end'):
      read(unfinished)
  (tmp_path / 'bad').mkdir()
  (tmp_path / 'bad' / 'a.jpg').write_bytes(b'no image')
  with pytest.raises(UserError, match='1 of 1 images are unusable'):
    read(tmp_path / 'bad')


def test_partners_have_the_same_name(folder, tmp_path_factory):
  other = tmp_path_factory.mktemp('other')
  (other / 'Anna').mkdir()
  for name in ('a.png', 'b.jpg', 'Anna/2.jpg'):
    write_image(other / name)
  first, second = read(folder)[0], read(other)[0]
  places, others = partners(first, second)
  assert [first.names[i] for i in places] == [second.names[i] for i in others] == ['Anna/2', 'b']
  write_image(other / 'a.jpg')
  with pytest.raises(UserError, match='1 names are there with several extensions: a'):
    partners(first, read(other)[0])
  lonely = tmp_path_factory.mktemp('lonely')
  write_image(lonely / 'z.png')
  with pytest.raises(UserError, match='no file names in common: Anna/1, Anna/2 in .*, z in '):
    partners(first, read(lonely)[0])


def test_sizes_as_text(tmp_path):
  write_image(tmp_path / 'a.png')
  assert read(tmp_path)[0].size_text == '20x9'
  np.testing.assert_array_equal(read(tmp_path)[0].sizes_hw, [[20, 9]])
