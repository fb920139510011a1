"""Verification of images, and the cache of verified ones."""

import json
import os
import pathlib

import pytest

from dgnet_jax.data import verification
from dgnet_jax.data.image_bytes import record_address
from dgnet_jax.data.verification import verify_images
from dgnet_jax.errors import UserError
from tests.data.folders import write_image


@pytest.fixture
def cache_file(tmp_path):
  return tmp_path / 'run' / 'verified.json'


@pytest.fixture
def paths(tmp_path):
  paths = [str(tmp_path / f'{i}.png') for i in range(4)]
  for seed, path in enumerate(paths):
    write_image(path, seed=seed)
  return paths


@pytest.fixture
def decoded(monkeypatch):
  """The file names of the images that are decoded."""
  names, verify_image = [], verification.verify_image

  def spy(path):
    names.append(os.path.basename(path))
    verify_image(path)

  monkeypatch.setattr(verification, 'verify_image', spy)
  return names


@pytest.fixture
def verify(cache_file, decoded):
  """Verifies paths and returns the file names of those that were decoded."""

  def run(paths):
    decoded.clear()
    verify_images(paths, threads=2, cache_file=cache_file)
    return sorted(decoded)

  return run


def test_only_new_and_changed_images_are_decoded(paths, verify, tmp_path):
  assert verify(paths) == ['0.png', '1.png', '2.png', '3.png']
  assert verify(paths) == []
  write_image(paths[1], seed=9, size_hw=(30, 9))
  stat = os.stat(paths[2])
  os.utime(paths[2], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
  write_image(tmp_path / 'new.png')
  assert verify([*paths, str(tmp_path / 'new.png')]) == ['1.png', '2.png', 'new.png']


def test_damaged_images_are_decoded_again_and_good_ones_are_not(paths, verify, decoded):
  for path in map(pathlib.Path, paths[2:]):
    path.write_bytes(path.read_bytes()[:40])
  for expected in (['0.png', '1.png', '2.png', '3.png'], ['2.png', '3.png']):
    with pytest.raises(UserError, match='2 of 4 images are unusable') as error:
      verify(paths)
    assert sorted(decoded) == expected
    assert paths[2] in str(error.value) and paths[3] in str(error.value)
  write_image(paths[2])
  write_image(paths[3])
  assert verify(paths) == ['2.png', '3.png']


def test_missing_image_is_an_error_although_it_was_verified(paths, verify):
  verify(paths)
  os.unlink(paths[0])
  with pytest.raises(UserError, match='0.png: unreadable .No such file'):
    verify(paths)


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'{"format": 1, "images"',
    b'\xff\xfe',
    b'[]',
    b'{}',
    b'{"format": 1, "images": [1]}',
    b'{"format": 0, "images": {}}',
    b'[' * 100_000,
  ],
)
def test_damaged_cache_means_verifying_again(paths, verify, cache_file, content):
  verify(paths)
  cache_file.write_bytes(content)
  assert len(verify(paths)) == 4
  assert verify(paths) == []


def test_damaged_entries_are_verified_again(paths, verify, cache_file):
  verify(paths)
  content = json.loads(cache_file.read_text())
  content['images'] |= {paths[0]: 'x', paths[1]: [1], paths[2]: None}
  cache_file.write_text(json.dumps(content))
  assert verify(paths) == ['0.png', '1.png', '2.png']


def test_cache_keeps_only_the_current_images(paths, verify, cache_file):
  verify(paths)
  verify(paths[:1])
  assert len(json.loads(cache_file.read_text())['images']) == 4  # nothing new, so it is not written
  write_image(paths[0], seed=9)
  verify(paths[:1])
  assert list(json.loads(cache_file.read_text())['images']) == paths[:1]
  assert [path.name for path in cache_file.parent.iterdir()] == ['verified.json']


def test_cache_that_cannot_be_written_is_a_warning(paths, tmp_path, lines):
  (tmp_path / 'file').write_text('')
  verify_images(paths, threads=1, cache_file=tmp_path / 'file' / 'verified.json')
  assert len(lines) == 1 and 'the next start verifies all images again' in lines[0]


def test_relative_paths_are_remembered_by_folder(tmp_path, verify, monkeypatch):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    write_image(tmp_path / name / 'x.png')
    monkeypatch.chdir(tmp_path / name)
    assert verify(['x.png']) == ['x.png']
  assert verify(['x.png']) == []


def test_undecodable_file_names_are_remembered(tmp_path, verify):
  path = os.fsencode(tmp_path) + b'/\xff.png'
  write_image(os.fsdecode(path))
  assert len(verify([os.fsdecode(path)])) == 1
  assert verify([os.fsdecode(path)]) == []


def test_records_are_verified_again_when_their_folder_changes(tmp_path, cache_file, monkeypatch):
  decoded = []
  monkeypatch.setattr(verification, 'verify_image', decoded.append)
  (tmp_path / '1.0.0').mkdir()
  (tmp_path / '1.0.0' / 'shard').write_bytes(b'records')
  addresses = [record_address(tmp_path / '1.0.0', 'train', i, 'x.jpg') for i in range(3)]
  for content, expected in ((b'records', 3), (b'records', 3), (b'more records', 6)):
    if content != b'records':
      (tmp_path / '1.0.0' / 'shard').write_bytes(content)
    verify_images(addresses, threads=1, cache_file=cache_file)
    assert len(decoded) == expected
