"""Unusual and damaged files and file names: each is read or reported in one message, never with a traceback."""

import io
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest

from dgnet_jax.data.images import for_each_file, read_image, verify_image
from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources.tfdata import import_tensorflow
from dgnet_jax.errors import UserError
from tests.data.folders import write_image, write_market
from tests.log_lines import logged

SIZE = (8, 4)
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(image, kind='png', **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def smooth(mode='RGB', seed=0):
  coarse = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), np.uint8)
  return Image.fromarray(coarse).resize((16, 24), Image.Resampling.BICUBIC).convert(mode)


def decode(tmp_path, encoded, size_hw=SIZE):
  path = tmp_path / 'image.jpg'  # the content decides, not the name
  path.write_bytes(encoded)
  return read_image(str(path), size_hw)


def one_color(mode, color, kind='png', **options):
  return encoded(Image.new(mode, SIZE[::-1], color), kind, **options)


# Encoded files and the colour that each shows.
KNOWN = {
  'grey': (one_color('L', 51), (51, 51, 51)),
  'black and white': (one_color('1', 1), (255, 255, 255)),
  'transparent': (one_color('RGBA', (10, 20, 30, 0)), (10, 20, 30)),
  'grey transparent': (one_color('LA', (40, 0)), (40, 40, 40)),
  '16 bits': (encoded(Image.fromarray(np.full(SIZE, 0x4321, np.uint16))), (0x43, 0x43, 0x43)),
  'cyan ink': (one_color('CMYK', (255, 0, 0, 0), 'jpeg', quality=100), (0, 255, 255)),
  'black ink': (one_color('CMYK', (0, 0, 0, 255), 'jpeg', quality=100), (0, 0, 0)),
  'no ink': (one_color('CMYK', (0, 0, 0, 0), 'jpeg', quality=100), (255, 255, 255)),
  'animation': (
    one_color('RGB', (9, 8, 7), save_all=True, append_images=[Image.new('RGB', SIZE[::-1], (200, 0, 0))]),
    (9, 8, 7),
  ),
  'several': (
    one_color('RGB', (99, 99, 99), 'mpo', save_all=True, append_images=[Image.new('RGB', SIZE[::-1])]),
    (99, 99, 99),
  ),
}


@pytest.mark.parametrize('name', KNOWN)
def test_every_kind_of_image_becomes_rgb(tmp_path, name):
  content, color = KNOWN[name]
  decoded = decode(tmp_path, content)
  assert decoded.shape == (*SIZE, 3) and decoded.dtype == np.uint8
  np.testing.assert_allclose(decoded, np.broadcast_to(color, decoded.shape), atol=2)


def test_tensorflow_decodes_the_same_pixels(tmp_path):
  pytest.importorskip('tensorflow', exc_type=ImportError)
  tf = import_tensorflow()
  palette = smooth().quantize(8)
  random = np.random.default_rng(0).integers(0, 2**16, (24, 16)).astype(np.uint16)
  images = [content for content, _ in KNOWN.values()]
  images += [encoded(smooth(mode)) for mode in ('L', 'RGBA', 'LA', '1')]
  images += [encoded(smooth('CMYK'), 'jpeg'), encoded(Image.fromarray(random))]
  images += [encoded(palette, transparency=bytes(range(8)))]
  for content in images:
    expected = tf.io.decode_jpeg(content, channels=3, dct_method='INTEGER_ACCURATE').numpy()
    np.testing.assert_array_equal(decode(tmp_path, content, expected.shape[:2]), expected)


VALID = [encoded(smooth(), 'jpeg'), encoded(smooth()), encoded(smooth('CMYK'), 'jpeg'), encoded(smooth().quantize(8))]


@given(st.sampled_from(VALID), st.data())
@few
def test_truncated_file_is_named(tmp_path, content, data):
  cut = data.draw(st.integers(0, len(content) * 3 // 4))  # beyond, only checksums may be missing
  with pytest.raises(UserError) as error:
    decode(tmp_path, content[:cut])
  assert str(error.value).count('image.jpg') == 1 and '\n' not in str(error.value)


@given(st.sampled_from(VALID), st.data())
@few
def test_damaged_file_is_read_or_named(tmp_path, content, data):
  damaged = bytearray(content)
  for _ in range(data.draw(st.integers(1, 8))):
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
  try:
    assert decode(tmp_path, bytes(damaged)).shape == (*SIZE, 3)
  except UserError as error:
    assert str(error).count('image.jpg') == 1


@given(st.binary(max_size=200))
@few
def test_random_bytes_are_named(tmp_path, content):
  with pytest.raises(UserError, match='image.jpg'):
    decode(tmp_path, content)


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from(['png', 'jpeg']))
@few
def test_tiny_images_are_read(tmp_path, height, width, kind):
  assert decode(tmp_path, encoded(Image.new('RGB', (width, height), (7, 7, 7)), kind), (64, 32)).max() == 7


file_names = st.text(st.characters(codec='utf-8', exclude_characters='/\0'), min_size=1, max_size=20)


def write_own_images(root, names):
  """Writes images of two identities and returns the paths that the file system accepted."""
  accepted = set()
  for i, name in enumerate(names):
    folder = root / 'train' / f'person {i % 2}'
    folder.mkdir(parents=True, exist_ok=True)
    try:
      write_image(folder / f'{name}.Jpg')
      accepted.add(str(folder / f'{name}.Jpg'))
    except OSError:  # too long, or an unsupported character
      pass
  return accepted


def verify(index):
  paths = [path for split in index.splits.values() for path in split.paths]
  for_each_file(lambda i: verify_image(paths[i]), paths, threads=1, action='checking')


@given(st.lists(file_names, min_size=1, max_size=4))
@few
def test_file_names_of_any_characters_are_read(tmp_path_factory, names):
  root = tmp_path_factory.mktemp('own')
  paths = write_own_images(root, names)
  hidden = {path for path in paths if os.path.basename(path).startswith('.')}
  with logged() as lines:
    try:
      index = read_layout(root, 'folders')
    except UserError as error:
      assert paths == hidden and 'no images in it' in str(error)
    else:
      assert set(index.train.paths) == paths - hidden
      verify(index)
  assert lines and all(line.isprintable() for line in lines)


@given(st.lists(file_names, min_size=1, max_size=3, unique=True))
@few
def test_wrong_names_of_any_characters_are_reported_in_one_line(tmp_path_factory, names):
  root = write_market(tmp_path_factory.mktemp('market'))
  for name in names:
    write_image(root / 'query' / f'x{name}.jpg')
  with pytest.raises(UserError, match='3|4|5 file names are not like') as error:
    read_layout(root, 'market1501')
  assert str(error.value).isprintable()


def test_undecodable_file_name_is_read_and_reported(tmp_path):
  folder = tmp_path / 'train' / 'a'
  folder.mkdir(parents=True)
  name = os.fsencode(str(folder)) + b'/\xff\xfe.jpg'
  write_image(name.decode('utf-8', 'surrogateescape'))
  index = read_layout(tmp_path, 'folders')
  verify(index)
  with open(name, 'wb'):
    pass
  with pytest.raises(UserError, match=r'\\udcff\\udcfe.jpg: not a readable') as error:
    verify(index)
  assert str(error.value).encode()


def test_links_are_followed_and_broken_ones_reported(tmp_path, lines):
  folder = write_market(tmp_path) / 'query'
  good, dangling, loop = (folder / f'{i:04d}_c1s1_000151_00.jpg' for i in (21, 22, 23))
  good.symlink_to(folder / '0003_c1s1_000151_00.jpg')
  dangling.symlink_to(tmp_path / 'nowhere.jpg')
  loop.symlink_to(loop)
  (folder / 'again').symlink_to(folder)
  lines.clear()
  index = read_layout(tmp_path)
  assert len(index.query) == 5 and len(lines) == 1 and '(again)' in lines[0]
  with pytest.raises(UserError, match='2 of 15 images') as error:
    verify(index)
  assert f'{dangling}: unreadable (No such file' in str(error.value)
  assert f'{loop}: unreadable (Too many levels of symbolic links)' in str(error.value)


def test_folder_that_links_to_itself_is_an_error(tmp_path):
  (tmp_path / 'train').mkdir()
  (tmp_path / 'train' / 'a').symlink_to(tmp_path / 'train' / 'a')
  (tmp_path / 'query').symlink_to(tmp_path / 'query')
  with pytest.raises(UserError, match='no images in it'):
    read_layout(tmp_path, 'folders')


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may read everything')
def test_missing_permission_is_reported(tmp_path):
  folder = write_market(tmp_path) / 'query'
  image = next(folder.iterdir())
  image.chmod(0)
  with pytest.raises(UserError, match='Permission denied'):
    verify(read_layout(tmp_path))
  folder.chmod(0)
  try:
    with pytest.raises(UserError, match=f'{folder}: cannot be read .Permission denied.'):
      read_layout(tmp_path, 'market1501')
  finally:
    folder.chmod(0o700)
