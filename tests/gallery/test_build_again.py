"""Galleries that are built again when folders, files or parts are gone, or when other folders are named."""

import csv
import json
import os
import pathlib
import shutil
import signal

import pytest

from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.gallery.bad_files import BAD_FILES, read_bad_files
from dgnet_jax.gallery.gallery import open_gallery
from dgnet_jax.gallery.info import gallery_text
from dgnet_jax.gallery.store import DESCRIPTION
from tests.gallery.test_build import Embed, built, content, expected, gallery, names, photos, write

pytest.importorskip('pyarrow')

__all__ = ['gallery', 'photos']  # fixtures


@pytest.fixture
def two(gallery, photos):
  """A gallery of two folders that were built one after the other, in one part."""
  built(gallery, photos / 'a')
  built(gallery, photos / 'b')
  built(gallery, photos / 'b')  # small parts become one
  assert len(list(gallery.glob('part-*'))) == 1
  return gallery


class TestLostParts:
  def test_photos_of_folders_that_are_not_named_are_not_given_up(self, two, photos):
    (part,) = two.glob('part-*')
    part.unlink()
    before = (two / DESCRIPTION).read_text()
    with pytest.raises(UserError, match=rf'is missing, with 7 photos, some of .*Name these, too.*: {photos}/b. All of'):
      built(two, photos / 'a')
    assert (two / DESCRIPTION).read_text() == before
    assert sorted(built(two, photos / 'a', photos / 'b')) == names(*range(7)) and content(two) == expected(*range(7))

  def test_a_folder_that_is_gone_can_be_named(self, two, photos):
    (part,) = two.glob('part-*')
    part.unlink()
    shutil.rmtree(photos / 'b')
    assert built(two, photos / 'a', photos / 'b') == names(*range(4)) and content(two) == expected(*range(4))

  def test_a_name_is_never_used_for_other_rows(self, gallery, photos):
    """A reader that opened the gallery before would take them for the rows that it knows."""
    built(gallery, photos / 'a')
    built(gallery, photos / 'b' / names(4)[0])
    used = {path.name for path in gallery.glob('part-*')}
    (photos / 'b' / names(4)[0]).unlink()
    for level in (5, 6):
      (photos / 'b' / names(level)[0]).unlink()
    built(gallery, photos / 'a', photos / 'b')
    write(photos / 'b' / 'new.png', 9)
    built(gallery, photos / 'b')
    new = {path.name for path in gallery.glob('part-*')} - used
    assert len(new) == 1 and content(gallery) == expected(*range(4)) | {'new.png': 9.0}


class TestFoldersThatAreGone:
  def test_their_photos_leave_the_gallery(self, two, photos, lines):
    shutil.rmtree(photos / 'b')
    assert built(two, photos / 'b') == [] and content(two) == expected(*range(4))
    assert any(f'{photos}/b: no images there any more; 3 of its images leave' in line for line in lines)
    with pytest.raises(UserError, match='No such file'):
      built(two, photos / 'b')  # now it means nothing

  def test_an_emptied_folder_and_a_missing_file_are_dropped(self, gallery, photos):
    built(gallery, photos)
    for path in (photos / 'b').iterdir():
      path.unlink()
    (photos / 'a' / names(0)[0]).unlink()
    built(gallery, photos / 'b', photos / 'a' / names(0)[0])
    assert content(gallery) == expected(1, 2, 3)

  def test_they_stay_if_that_is_asked_for(self, two, photos):
    shutil.rmtree(photos / 'b')
    built(two, photos / 'b', keep_missing=True)
    assert content(two) == expected(*range(7))

  def test_other_empty_folders_are_an_error(self, two, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='no images in this folder'):
      built(two, tmp_path / 'empty')


def test_labels_are_by_the_folder_that_is_named_now(gallery, photos):
  pattern = '^(?P<identity>[ab])/'
  built(gallery, photos / 'a', identity_pattern=pattern)
  assert set(open_gallery(gallery).identities) == {''}
  assert built(gallery, photos) == names(4, 5, 6)
  assert open_gallery(gallery).identities == ('a',) * 4 + ('b',) * 3
  assert f'folder:           {photos}, 7 images' in gallery_text(gallery)


def test_photos_of_a_stopped_build_stay_pending_when_another_folder_is_built(gallery, photos):
  for level in range(200, 204):
    write(photos / 'a' / f'{level}.png', level)
  with pytest.raises(Interrupted, match='6 of 8'):
    built(gallery, photos / 'a', embed=Embed(stop=lambda: os.kill(os.getpid(), signal.SIGTERM)))
  pending = json.loads((gallery / DESCRIPTION).read_text())['pending']
  assert pending == {str(photos / 'a'): 2}
  built(gallery, photos / 'b')
  assert json.loads((gallery / DESCRIPTION).read_text())['pending'] == pending
  built(gallery, photos / 'a')
  assert json.loads((gallery / DESCRIPTION).read_text())['pending'] == {}


def test_bad_files_of_other_folders_remain_listed(gallery, photos):
  bad = [photos / 'a' / 'bad\nname.png', photos / 'b' / 'bad.png']
  for path in bad:
    path.write_bytes(b'no image')
  built(gallery, photos / 'a', skip_bad=True)
  built(gallery, photos / 'b', skip_bad=True)
  assert read_bad_files(gallery).keys() == set(map(str, bad))
  assert 'left out:         2 images' in gallery_text(gallery)
  with (gallery / BAD_FILES).open(newline='') as file:
    assert len(list(csv.reader(file))) == 3
  bad[1].unlink()
  built(gallery, photos / 'b')
  assert read_bad_files(gallery).keys() == {str(bad[0])}


class TestTables:
  def test_a_table_that_is_gone_says_where_its_name_is_from(self, gallery, photos, tmp_path):
    table = tmp_path / 'tracks.csv'
    table.write_text(f'path,track\nphotos/a/{names(0)[0]},x')
    built(gallery, photos, tracks=str(table))
    table.unlink()
    with pytest.raises(UserError, match=r'(?s)tracks\.csv: cannot be read.*gallery\.json has this table.*--tracks= '):
      built(gallery, photos)
    with pytest.raises(UserError, match='--tracks is folder, or a CSV file'):
      built(gallery, photos, tracks='folders')
    assert built(gallery, photos, tracks='') == []

  @pytest.mark.parametrize('separator', [';', '\t', '|'])
  def test_separators_are_those_of_data_sets(self, gallery, photos, tmp_path, separator):
    rows = [('Path', 'Track'), *((f'photos/a/{name}', 'walk') for name in names(0, 2)), ('', '')]
    (tmp_path / 'tracks.csv').write_text('\n'.join(separator.join(row) for row in rows))
    built(gallery, photos, tracks=str(tmp_path / 'tracks.csv'))
    assert sorted(open_gallery(gallery).num_images) == [1, 1, 1, 1, 1, 2]

  def test_tracks_of_folders_that_are_not_named_are_no_mistake(self, gallery, photos, tmp_path, lines):
    table = tmp_path / 'tracks.csv'
    table.write_text(f'path,track\nphotos/a/{names(0)[0]},x\nphotos/b/{names(4)[0]},y')
    built(gallery, photos / 'a', tracks=str(table))
    assert not any('table of tracks' in line for line in lines)
    table.write_text(f'path,track\na/{names(0)[0]},x\nb/{names(4)[0]},y')
    built(gallery, photos / 'a')
    assert any('2 of 2 paths in the table of tracks' in line for line in lines)


@pytest.fixture
def set_pending(two):
  """Sets the numbers of photos that a stopped build has left, and returns what reads them."""

  def set_numbers(numbers):
    values = json.loads((two / DESCRIPTION).read_text())
    (two / DESCRIPTION).write_text(json.dumps(values | {'pending': numbers}))
    return lambda: json.loads((two / DESCRIPTION).read_text())['pending']

  return set_numbers


def test_single_files_of_a_stopped_build_are_no_longer_pending(two, photos, set_pending):
  pending = set_pending({str(photos / 'a'): 5})
  write(photos / 'a' / 'new.png', 9)
  built(two, photos / 'a' / 'new.png')
  assert pending() == {str(photos / 'a'): 4}


def test_photos_that_were_never_embedded_may_be_gone(two, photos, set_pending, tmp_path):
  pending = set_pending({str(tmp_path / 'gone'): 5})
  built(two, photos / 'a', photos / 'b', tmp_path / 'gone')
  assert pending() == {} and content(two) == expected(*range(7))


def test_the_gallery_may_have_any_name(tmp_path, photos):
  folder = pathlib.Path(os.fsdecode(bytes(tmp_path) + b'/gallery\xff'))
  built(folder, photos)
  assert content(folder) == expected(*range(7)) and 'images:           7' in gallery_text(folder)


def test_what_is_no_folder_or_path_is_refused(tmp_path, photos):
  file = tmp_path / 'file'
  file.write_bytes(b'')
  with pytest.raises(UserError, match='is a file; a gallery is a folder'):
    built(file, photos)
  with pytest.raises(UserError, match='int is not a path'):
    built(tmp_path / 'new', 3)


def test_a_description_says_what_is_missing(two):
  values = json.loads((two / DESCRIPTION).read_text())
  del values['pending']
  (two / DESCRIPTION).write_text(json.dumps(values))
  with pytest.raises(UserError, match="'pending' is missing"):
    open_gallery(two)
