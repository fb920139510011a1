"""Galleries on disk: what is embedded, what is kept, and what a killed build leaves."""

import os
import pathlib
import shutil
import signal

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.gallery import build, store
from dgnet_jax.gallery.build import BuildOptions, build_gallery
from dgnet_jax.gallery.gallery import open_gallery
from dgnet_jax.gallery.info import gallery_text
from dgnet_jax.gallery.store import DESCRIPTION, Description
from dgnet_jax.utils.locks import LOCK_FILE, InUse, exclusive

parquet = pytest.importorskip('pyarrow.parquet')

NETWORKS = Description(networks='a' * 64, step=3, run='runs/a', image_size_hw=(8, 4), size=4, num_pieces=2)


def write(path, level):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', (4, 8), (level,) * 3).save(path)


@pytest.fixture
def photos(tmp_path):
  """Seven images, each of one grey level, in two folders."""
  folder = tmp_path / 'photos'
  for level in range(7):
    write(folder / f'{"a" if level < 4 else "b"}' / f'{level:04d}_c{level % 2}.png', level)
  return folder


class Embed:
  """Embeds an image as its grey level, two at a time; remembers the names, and can be made to stop."""

  def __init__(self, stop=None):
    self.names = []
    self.stop = stop

  def __call__(self, paths):
    for start in range(0, len(paths), 2):
      some = paths[start : start + 2]
      if self.stop and len(self.names) >= 4:
        self.stop()
      self.names += [pathlib.Path(path).name for path in some]
      levels = [np.asarray(Image.open(path)).mean() for path in some]
      yield np.float32([[level, 1, 1, level] for level in levels])


@pytest.fixture
def gallery(tmp_path):
  return tmp_path / 'gallery'


def built(gallery, *images, embed=None, networks=NETWORKS, **options):
  """Builds a gallery, and returns the names of the images that were embedded."""
  embed = embed or Embed()
  build_gallery(gallery, images, embed, networks, BuildOptions(**options))
  return embed.names


def content(gallery):
  """The grey level by the name of each photo, as the gallery has it."""
  opened = open_gallery(gallery)
  assert list(opened.paths) == sorted(opened.paths)
  return dict(zip([pathlib.Path(path).name for path in opened.paths], opened.features[:, 0].tolist(), strict=True))


def stamp(path, level):
  """Changes an image without changing its size or time: only its content differs."""
  stat = path.stat()
  write(path, level)
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def names(*levels):
  return [f'{level:04d}_c{level % 2}.png' for level in levels]


def expected(*levels):
  return {f'{level:04d}_c{level % 2}.png': float(level) for level in levels}


@pytest.fixture(params=[2, 2000])
def rows(request, monkeypatch):
  """Photos in a file: several files, or one."""
  for module in (store, build):
    monkeypatch.setattr(module, 'ROWS', request.param)


@pytest.mark.usefixtures('rows')
class TestIncremental:
  def test_everything_is_embedded_once(self, gallery, photos):
    assert built(gallery, photos) == names(*range(7)) and content(gallery) == expected(*range(7))
    before = sorted((path.name, path.stat().st_mtime_ns) for path in gallery.glob('part-*'))
    assert built(gallery, photos) == [] and content(gallery) == expected(*range(7))
    assert sorted((path.name, path.stat().st_mtime_ns) for path in gallery.glob('part-*')) == before

  def test_only_new_and_changed_photos_are_embedded(self, gallery, photos):
    built(gallery, photos)
    write(photos / 'a' / '0009_c1.png', 9)
    write(photos / 'b' / '0005_c1.png', 55)
    os.utime(photos / 'a' / '0001_c1.png')  # touched, but the same
    assert sorted(built(gallery, photos)) == ['0005_c1.png', '0009_c1.png']
    assert content(gallery) == expected(*range(7), 9) | {'0005_c1.png': 55.0}
    assert built(gallery, photos) == []

  def test_photos_that_are_gone_are_dropped_or_kept(self, gallery, photos):
    built(gallery, photos)
    (photos / 'a' / '0001_c1.png').unlink()
    assert built(gallery, photos, keep_missing=True) == [] and content(gallery) == expected(*range(7))
    assert built(gallery, photos) == [] and content(gallery) == expected(0, 2, 3, 4, 5, 6)

  def test_moved_and_copied_photos_keep_their_embedding(self, gallery, photos):
    built(gallery, photos)
    shutil.move(photos / 'a' / '0001_c1.png', photos / 'b' / 'moved.png')
    shutil.copy(photos / 'a' / '0002_c0.png', photos / 'copied.png')
    assert built(gallery, photos) == []
    assert content(gallery) == expected(0, 2, 3, 4, 5, 6) | {'moved.png': 1.0, 'copied.png': 2.0}

  def test_a_folder_may_be_moved(self, gallery, photos, tmp_path):
    built(gallery, photos)
    photos.rename(tmp_path / 'renamed')
    assert built(gallery, tmp_path / 'renamed') == [] and content(gallery) == expected(*range(7))
    assert all('/renamed/' in path for path in open_gallery(gallery).paths)

  def test_photos_of_folders_that_are_not_named_stay(self, gallery, photos):
    built(gallery, photos / 'a')
    assert built(gallery, photos / 'b') == names(4, 5, 6) and content(gallery) == expected(*range(7))
    (photos / 'b' / '0006_c0.png').unlink()
    assert built(gallery, photos / 'a') == [] and len(content(gallery)) == 7
    assert built(gallery, photos / 'b' / '0005_c1.png') == [] and len(content(gallery)) == 7
    assert built(gallery, photos) == [] and content(gallery) == expected(*range(6))

  def test_a_build_that_dies_goes_on(self, gallery, photos, monkeypatch):
    monkeypatch.setattr(build, 'SECONDS_BETWEEN_PARTS', -1.0)

    def die():
      raise RuntimeError('killed')

    with pytest.raises(RuntimeError, match='killed'):
      built(gallery, photos, embed=Embed(stop=die))
    (gallery / 'part-00000999.parquet').write_bytes(b'half')  # of a part that was being written
    assert content(gallery) == expected(*range(4))
    assert 'not embedded yet: 3' in gallery_text(gallery)
    assert built(gallery, photos) == names(4, 5, 6) and content(gallery) == expected(*range(7))
    assert not (gallery / 'part-00000999.parquet').exists() and 'not embedded' not in gallery_text(gallery)

  def test_a_signal_keeps_what_is_embedded(self, gallery, photos):
    with pytest.raises(Interrupted, match='6 of 7 images are embedded'):
      built(gallery, photos, embed=Embed(stop=lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert built(gallery, photos) == names(6) and content(gallery) == expected(*range(7))

  def test_a_damaged_part_is_embedded_again(self, gallery, photos, lines):
    built(gallery, photos)
    part = sorted(gallery.glob('part-*'))[0]
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(UserError, match=f'{part.name}: damaged'):
      open_gallery(gallery)
    assert built(gallery, photos)[:2] == names(0, 1) and content(gallery) == expected(*range(7))
    assert any('photos; they are embedded again' in line for line in lines)


def test_a_part_that_cannot_be_read_now_is_not_given_up(gallery, photos):
  built(gallery, photos)
  (part,) = gallery.glob('part-*')
  part.rename(gallery / 'kept')
  part.mkdir()
  with pytest.raises(UserError, match='cannot be read'):
    built(gallery, photos)
  part.rmdir()
  (gallery / 'kept').rename(part)
  assert built(gallery, photos) == [] and content(gallery) == expected(*range(7))


def test_small_files_become_one(gallery, photos, monkeypatch):
  monkeypatch.setattr(store, 'ROWS', 100)
  monkeypatch.setattr(build, 'ROWS', 100)
  for level in range(3):
    built(gallery, photos / 'a' / names(level)[0])
  assert len(list(gallery.glob('part-*'))) == 2  # the last one was embedded after the others were joined
  built(gallery, photos / 'a' / names(0)[0])
  assert len(list(gallery.glob('part-*'))) == 1 and content(gallery) == expected(0, 1, 2)


def test_a_change_of_content_alone_is_seen_when_the_time_changes(gallery, photos):
  """Size and time decide first, as documented."""
  built(gallery, photos)
  stamp(photos / 'a' / '0001_c1.png', 77)
  built(gallery, photos)
  assert content(gallery)['0001_c1.png'] == 1.0
  os.utime(photos / 'a' / '0001_c1.png')
  assert built(gallery, photos) == ['0001_c1.png'] and content(gallery)['0001_c1.png'] == 77.0


def test_bad_files_are_an_error_or_listed(gallery, photos, lines):
  (photos / 'a' / 'bad.png').write_bytes(b'no image')
  with pytest.raises(UserError, match=r'(?s)1 of 8 images are unusable.*bad\.png.*--skip-bad'):
    built(gallery, photos)
  assert not list(gallery.glob('*'))
  assert built(gallery, photos, skip_bad=True) == names(*range(7))
  assert (gallery / 'bad.csv').read_text().splitlines()[1].startswith(str(photos / 'a' / 'bad.png'))
  assert any('1 images cannot be read and are left out' in line for line in lines)
  assert 'left out:         1 images' in gallery_text(gallery)
  write(photos / 'a' / 'bad.png', 8)
  assert built(gallery, photos) == ['bad.png'] and not (gallery / 'bad.csv').exists()


def test_columns_are_those_of_the_documentation(gallery, photos):
  built(gallery, photos, identity_pattern=r'(?P<identity>\d+)_', camera_pattern=r'_c(?P<camera>\d)')
  row = parquet.read_table(sorted(gallery.glob('part-*'))[0]).to_pylist()[1]
  path = photos / 'a' / '0001_c1.png'
  assert row.pop('sha256') and row == {
    **{'root': str(photos), 'path': 'a/0001_c1.png', 'identity': '0001', 'camera': '1', 'track': None},
    **{'size': path.stat().st_size, 'modified_ns': path.stat().st_mtime_ns, 'embedding': [1.0, 1.0, 1.0, 1.0]},
  }


def test_patterns_are_remembered_and_may_change(gallery, photos):
  built(gallery, photos, identity_pattern=r'(?P<identity>\d+)_')
  write(photos / 'c' / '0008_c0.png', 8)
  built(gallery, photos)
  assert open_gallery(gallery).identities[-1] == '0008' and open_gallery(gallery).cameras[-1] == ''
  assert built(gallery, photos, identity_pattern='', camera_pattern=r'_c(?P<camera>\d)') == []
  assert open_gallery(gallery).identities[-1] == '' and open_gallery(gallery).cameras[-1] == '0'
  with pytest.raises(UserError, match='no group named camera'):
    built(gallery, photos, camera_pattern='c')
  with pytest.raises(UserError, match='not a regular expression'):
    built(gallery, photos, identity_pattern='(')


def test_other_networks_are_refused(gallery, photos):
  built(gallery, photos)
  other = Description(networks='b' * 64, step=9, run='runs/b', image_size_hw=(8, 4), size=4, num_pieces=2)
  with pytest.raises(UserError, match=r'step 3 of runs/a; these are of step 9 of runs/b.*another folder'):
    built(gallery, photos, networks=other)
  assert content(gallery) == expected(*range(7))


def test_two_builds_do_not_interleave(gallery, photos):
  gallery.mkdir()
  descriptor = os.open(gallery / LOCK_FILE, os.O_RDWR | os.O_CREAT)
  import fcntl

  fcntl.flock(descriptor, fcntl.LOCK_EX)
  with pytest.raises(InUse, match='in use by another process'):
    built(gallery, photos)
  os.close(descriptor)
  with exclusive(gallery / LOCK_FILE, 'x'):  # this thread may go on
    assert len(built(gallery, photos)) == 7


def test_folders_of_something_else_are_refused(gallery, photos, tmp_path):
  gallery.mkdir()
  (gallery / 'table.parquet').write_bytes(b'')
  with pytest.raises(UserError, match='Parquet files of something else'):
    built(gallery, photos)
  with pytest.raises(UserError, match='no gallery; `dgnet index build'):
    open_gallery(tmp_path)
  with pytest.raises(UserError, match='no images in this folder'):
    built(tmp_path / 'new', gallery)


@pytest.mark.parametrize(
  'text', ['', '[]', '{"format": 1}', '{"format": 2}', '{"format": 2, "parts": [{"file": "../x", "rows": 1}]}']
)
def test_damaged_descriptions_are_named(gallery, photos, text):
  built(gallery, photos)
  (gallery / DESCRIPTION).write_text(text)
  with pytest.raises(UserError, match=r'gallery\.json: (cannot be read|format 1)'):
    open_gallery(gallery)


def test_an_embedding_that_is_not_finite_is_named(gallery, photos):
  def embed(paths):
    yield np.full((len(paths), 4), np.nan, np.float32)

  build_gallery(gallery, [photos], embed, NETWORKS, BuildOptions())
  with pytest.raises(UserError, match='an embedding is not finite'):
    open_gallery(gallery).features  # noqa: B018 (read when needed)


class TestTracks:
  def test_folders_are_tracks(self, gallery, photos):
    built(gallery, photos, tracks='folder')
    opened = open_gallery(gallery)
    assert [pathlib.Path(path).name for path in opened.paths] == names(0, 4) and opened.num_images == (4, 3)
    levels = np.float64([[level, 1, 1, level] for level in range(4)]).mean(axis=0).reshape(2, 2)
    halves = levels / np.linalg.norm(levels, axis=1, keepdims=True)
    np.testing.assert_allclose(opened.features[0], halves.ravel(), rtol=1e-6)

  def test_a_table_names_tracks(self, gallery, photos, tmp_path):
    rows = ['path,track', *(f'photos/a/{name},walk' for name in names(0, 2))]
    (tmp_path / 'tracks.csv').write_text('\n'.join(rows))
    built(gallery, photos, tracks=str(tmp_path / 'tracks.csv'))
    opened = open_gallery(gallery)
    assert opened.num_images == (2, 1, 1, 1, 1, 1) and 'tracks:           1 of 2 images' in gallery_text(gallery)
    assert built(gallery, photos, tracks='') == [] and set(open_gallery(gallery).num_images) == {1}

  def test_what_labels_miss_is_said(self, gallery, photos, tmp_path, lines):
    (tmp_path / 'tracks.csv').write_text('path,track\nphotos/a/0000_c0.png,x\nphotos/a/nowhere.png,x')
    built(gallery, photos, tracks=str(tmp_path / 'tracks.csv'), identity_pattern='(?P<identity>0001)_')
    assert any('no identity in 6 of 7 paths' in line for line in lines)
    assert any('1 of 2 paths in the table of tracks are not among the images' in line for line in lines)

  @pytest.mark.parametrize(
    ('text', 'problem'),
    [
      ('path\na', 'no column track'),
      ('path,track\na.png,', 'line 2: needs a path'),
      ('path,track\na.png,1\na.png,2', 'line 3: needs a path'),
      ('path,track', 'no tracks in it'),
    ],
  )
  def test_wrong_tables_are_refused(self, gallery, photos, tmp_path, text, problem):
    (tmp_path / 'tracks.csv').write_text(text)
    with pytest.raises(UserError, match=problem):
      built(gallery, photos, tracks=str(tmp_path / 'tracks.csv'))
