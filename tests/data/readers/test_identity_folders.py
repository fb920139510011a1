"""A folder for each identity: the release's layout, and the user's own images."""

import numpy as np
import pytest

from dgnet_jax.data.registry import detect_layout, read_layout
from tests.data.folders import write_images
from tests.data.reading import check_error


@pytest.fixture
def release(tmp_path):
  train = ('0002/0002_c1s1_000451_03.jpg', '0002/0002_c3s1_000551_00.jpg', '0007/0007_c12_f2.png')
  validation = '0002/0002_c5s1_1_00.jpg'
  gallery = ('0003/0003_c2s1_1_00.jpg', '-1/-1_c2s1_1_00.jpg', '0000/0000_c2s1_1_00.jpg')
  return write_images(
    tmp_path,
    *(f'pytorch/train/{path}' for path in train),
    f'pytorch/val/{validation}',
    *(f'pytorch/train_all/{path}' for path in (*train, validation)),
    'pytorch/query/0003/0003_c1s1_1_00.jpg',
    'pytorch/multi-query/0003/0003_c1s1_2_00.jpg',
    *(f'pytorch/gallery/{path}' for path in gallery),
  )


def test_release_layout_is_read(release):
  assert detect_layout(release).name == detect_layout(release / 'pytorch').name == 'release'
  index = read_layout(release)
  assert read_layout(release / 'pytorch').train.paths == index.train.paths and index.root == str(release / 'pytorch')
  np.testing.assert_array_equal(index.train.identity, [2, 2, 2, 7])
  np.testing.assert_array_equal(index.train.camera, [1, 3, 5, 12])
  np.testing.assert_array_equal(index.gallery.identity, [-1, 0, 3])
  assert len(index.multi_query) == 1 and index.identity_names[7] == '0007'


def test_release_validation_can_be_excluded(release):
  assert len(read_layout(release, train_with_val=False).train) == 3
  (release / 'pytorch' / 'train_all').rename(release / 'elsewhere')
  assert len(read_layout(release).train) == 4  # train and val


def test_0000_in_train_is_an_identity(tmp_path):
  paths = ('train/0000/0000_c1_1.jpg', 'train/0001/0001_c1_1.jpg', 'gallery/0000/0000_c2_1.jpg')
  index = read_layout(write_images(tmp_path, *paths))
  assert index.name == 'release' and index.num_identities == 2 and index.gallery.identity[0] == 1


def test_own_folders_are_read(tmp_path):
  write_images(tmp_path, 'train/Änne/a cam-door.jpg', 'train/Bob\n/b cam-roof.JPG', 'query/Zoé/1 cam-door.jpg')
  write_images(tmp_path, 'gallery/Zoé/2 cam-roof.jpg', 'gallery/-1/3 cam-yard.jpg', 'gallery/0/4 cam-yard.jpg')
  index = read_layout(tmp_path, camera_pattern=r'cam-(?P<camera>\w+)')
  assert index.name == 'folders' and index.camera_names == {1: 'door', 2: 'roof', 3: 'yard'}
  assert [index.identity_names[i] for i in sorted(index.class_of)] == ['Bob\n', 'Änne']
  np.testing.assert_array_equal(index.gallery.identity, [-1, 0, 3])


def test_cameras_may_be_folders(tmp_path, lines):
  write_images(tmp_path, 'train/Anna/cam1/001.jpg', 'train/Anna/cam10/001.jpg', 'train/Ben/cam2/a/b.jpg')
  for pattern, cameras in ((r'^(?P<camera>[^/]+)/', ['cam1', 'cam10', 'cam2']), (r'cam(?P<camera>\d+)/', [1, 10, 2])):
    index = read_layout(tmp_path, camera_pattern=pattern)
    assert index.name == 'folders' and [index.camera_names[i] for i in index.train.camera] == [*map(str, cameras)]
    assert [index.identity_names[i] for i in index.train.identity] == ['Anna', 'Anna', 'Ben']
  assert lines == []
  assert read_layout(tmp_path).num_cameras == 1
  assert "3 images are in folders of an identity's folder (Anna/cam1/001.jpg" in lines[1]
  assert "data.camera_pattern='^(?P<camera>[^/]+)/'" in lines[1]


def test_an_identity_is_not_searched_for_its_camera(tmp_path):
  index = read_layout(write_images(tmp_path, 'train/cam9/x_cam1.jpg'), camera_pattern=r'cam(?P<camera>\d+)')
  assert index.train.camera.tolist() == [1]


def test_flat_folders_are_read_with_a_pattern(tmp_path):
  write_images(tmp_path, 'train/anna_cam1_001.jpg', 'train/anna_cam12_002.jpg', 'train/more/ben_cam1_001.jpg')
  patterns = {'identity_pattern': r'(^|/)(?P<identity>[a-z]+)_', 'camera_pattern': r'cam(?P<camera>\d+)'}
  index = read_layout(tmp_path, 'folders', **patterns)
  assert [index.identity_names[i] for i in index.train.identity] == ['anna', 'anna', 'ben']
  assert index.train.camera.tolist() == [12, 1, 1]  # sorted by path
  write_images(tmp_path, 'train/Unknown.jpg')
  check_error(tmp_path, 'no identity in 1 of 4 names', 'Unknown.jpg', layout='folders', **patterns)


def test_flat_folders_without_a_pattern_are_refused_with_the_way_out(tmp_path, lines):
  write_images(tmp_path, 'train/anna_1.jpg', 'train/ben_1.jpg')
  words = ('2 images, but no folder for each identity', 'anna_1.jpg', 'data.identity_pattern')
  check_error(tmp_path, *words, layout='folders')
  write_images(tmp_path, 'train/Cleo/1.jpg')
  assert len(read_layout(tmp_path, 'folders').train) == 1
  assert "skipped 2 images that are in no identity's folder (anna_1.jpg, ben_1.jpg)" in lines[-1]


def test_file_names_without_camera_are_listed(tmp_path):
  write_images(tmp_path, 'train/Änne/a cam-door.jpg', 'train/Bob\n/b cam-roof.JPG')
  words = ('no camera in 2 of 2 file names', 'a cam-door.jpg', 'Bob\\n')
  check_error(tmp_path, *words, layout='folders', camera_pattern=r'camera(?P<camera>\d)')


def test_without_cameras_every_image_of_an_identity_is_a_match(tmp_path, lines):
  index = read_layout(write_images(tmp_path, 'train/A/a.jpg', 'query/B/b.jpg', 'gallery/B/b.jpg'))
  assert index.query.camera[0] != index.gallery.camera[0] and 'data.camera_pattern is not set' in lines[0]


def test_other_files_and_empty_folders_are_warnings(tmp_path, lines):
  write_images(tmp_path, 'train/A/a.jpg')
  (tmp_path / 'train' / 'B').mkdir()
  (tmp_path / 'train' / 'A' / 'notes.txt').write_text('')
  assert read_layout(tmp_path).num_identities == 1
  assert 'skipped 1 entries' in lines[1] and '1 folders without images (B)' in lines[2]


def test_empty_split_is_an_error(tmp_path):
  write_images(tmp_path, 'train/A/a.jpg')
  (tmp_path / 'query').mkdir()
  check_error(tmp_path, str(tmp_path / 'query'), 'a folder for each identity', layout='folders')
