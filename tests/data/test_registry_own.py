"""A folder for each identity, and tables."""

import numpy as np
import pytest

from dgnet_jax.data.registry import read_layout, recognise
from tests.data.test_registry import check_error, fill, read

CAM = r'camera(?P<camera>\d)'
HEADER = 'path,identity,camera,split\n'


class TestIdentityFolders:
  def release(self, root):
    paths = ('0002/0002_c1s1_000451_03.jpg', '0002/0002_c3s1_000551_00.jpg', '0007/0007_c12_f2.png')
    fill(root, *(f'pytorch/train/{path}' for path in paths))
    fill(root, *(f'pytorch/train_all/{path}' for path in paths), 'pytorch/val/0002/0002_c5s1_1_00.jpg')
    fill(root, 'pytorch/train_all/0002/0002_c5s1_1_00.jpg')
    fill(root, 'pytorch/query/0003/0003_c1s1_1_00.jpg', 'pytorch/multi-query/0003/0003_c1s1_2_00.jpg')
    return fill(root, *(f'pytorch/gallery/{p}_c2s1_1_00.jpg' for p in ('0003/0003', '-1/-1', '0000/0000')))

  def test_release(self, tmp_path):
    root = self.release(tmp_path)
    assert recognise(root).name == recognise(root / 'pytorch').name == 'release'
    index = read(root)
    assert read(root / 'pytorch').train.paths == index.train.paths and index.root == str(root / 'pytorch')
    np.testing.assert_array_equal(index.train.identity, [2, 2, 2, 7])
    np.testing.assert_array_equal(index.train.camera, [1, 3, 5, 12])
    np.testing.assert_array_equal(index.gallery.identity, [-1, 0, 3])
    assert len(index.multi_query) == 1 and index.identity_names[7] == '0007'
    assert len(read(root, train_with_val=False).train) == 3
    (root / 'pytorch' / 'train_all').rename(tmp_path / 'elsewhere')
    assert len(read(root).train) == 4  # train and val

  def test_0000_of_the_training_part_is_a_person(self, tmp_path):
    index = read(fill(tmp_path, 'train/0000/0000_c1_1.jpg', 'train/0001/0001_c1_1.jpg', 'gallery/0000/0000_c2_1.jpg'))
    assert index.name == 'release' and index.num_identities == 2 and index.gallery.identity[0] == 1

  def test_own_folders(self, tmp_path):
    fill(tmp_path, 'train/Änne/a cam-door.jpg', 'train/Bob\n/b cam-roof.JPG', 'query/Zoé/1 cam-door.jpg')
    fill(tmp_path, 'gallery/Zoé/2 cam-roof.jpg', 'gallery/-1/3 cam-yard.jpg', 'gallery/0/4 cam-yard.jpg')
    index = read(tmp_path, camera_pattern=r'cam-(?P<camera>\w+)')
    assert index.name == 'folders' and index.camera_names == {1: 'door', 2: 'roof', 3: 'yard'}
    assert [index.identity_names[i] for i in sorted(index.class_of)] == ['Bob\n', 'Änne']
    np.testing.assert_array_equal(index.gallery.identity, [-1, 0, 3])
    check_error(tmp_path, 'do not tell their camera', 'a cam-door.jpg', 'Bob\\n', layout='folders', camera_pattern=CAM)

  def test_without_cameras_every_image_of_a_person_is_a_match(self, tmp_path, lines):
    lines.clear()
    fill(tmp_path, 'train/A/a.jpg', 'query/B/b.jpg', 'gallery/B/b.jpg')
    index = read_layout(tmp_path)
    assert index.query.camera[0] != index.gallery.camera[0] and 'camera_pattern' in lines[0]

  def test_folders_without_images(self, tmp_path, lines):
    fill(tmp_path, 'train/A/a.jpg')
    (tmp_path / 'train' / 'B').mkdir()
    (tmp_path / 'train' / 'A' / 'notes.txt').write_text('')
    lines.clear()
    assert read_layout(tmp_path).num_identities == 1
    assert '1 entries' in lines[1] and '1 folders without images (B)' in lines[2]
    (tmp_path / 'query').mkdir()
    check_error(tmp_path, str(tmp_path / 'query'), 'a folder for each identity', layout='folders')


class TestTable:
  def write(self, tmp_path, text):
    (tmp_path / 'all.csv').write_text(text)
    return tmp_path / 'all.csv'

  def test_rows(self, tmp_path):
    path = self.write(tmp_path, f'{HEADER}a.jpg,Anna,1,train\n"b, c.jpg",5,2,train\n/abs/d.jpg,-1,1,gallery\n')
    assert recognise(path).name == 'csv'
    index = read(path)
    assert index.train.paths == (str(tmp_path / 'a.jpg'), str(tmp_path / 'b, c.jpg')) and index.root == str(tmp_path)
    assert index.identity_names[2] == 'Anna' and index.gallery.identity[0] == -1
    assert index.gallery.paths == ('/abs/d.jpg',)

  @pytest.mark.parametrize(
    ('text', 'words'),
    [
      ('', 'no column path'),
      ('path;identity;camera;split\n', 'the first line must be'),
      ('path,identity,split\na,b,c\n', 'no column camera'),
      (HEADER, 'no images'),
      (f'{HEADER}a,b,1,train,x\n', 'line 2: not as many'),
      (f'{HEADER}a,b,1,train\na,b\n', 'line 3: not as many'),
      (f'{HEADER}a,,1,train\n', 'no identity'),
      (f'{HEADER}a,b,1,test\n', "split 'test' is none of train, query"),
      (f'{HEADER}{"x" * 200_000},b,1,train\n', 'no CSV'),
    ],
  )
  def test_wrong_tables(self, tmp_path, text, words):
    check_error(self.write(tmp_path, text), 'all.csv', words, layout='csv')

  def test_a_folder_is_no_table(self, tmp_path):
    check_error(tmp_path, 'must name the .csv file', layout='csv')
