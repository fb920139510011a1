"""Reading, resizing and normalising images, against the release's own."""

import io

import jax
import jax.numpy as jnp
import numpy as np
from PIL import ExifTags, Image
import pytest

from dgnet_jax.data.images import (
  decode_image,
  for_each_file,
  read_header,
  read_image,
  read_unresized,
  resize_bilinear,
  verify_image,
)
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError
from dgnet_jax.pixels import denormalize, normalize
from tests.data.folders import TRAIN, write_market
from tests.parity import goldens


@pytest.fixture(scope='module')
def golden(parity_dir):
  with np.load(parity_dir / 'preprocess.npz') as file:
    return dict(file)


@pytest.mark.parametrize('i', range(4))
def test_preprocessing_agrees_with_the_release(golden, tmp_path, i, ledger):
  (tmp_path / 'x.jpg').write_bytes(golden[f'file{i}'].tobytes())
  resized = read_image(str(tmp_path / 'x.jpg'), (256, 128))
  difference = np.abs(resized.astype(int) - golden[f'resized{i}'])
  ledger.check('preprocess: share of values off by more than 1/255 after resizing', np.mean(difference > 1), 0.01)
  normalized = normalize(golden[f'resized{i}'])
  assert normalized.dtype == np.float32
  error = goldens.relative_error(normalized, golden[f'out{i}'].transpose(1, 2, 0))
  ledger.check('preprocess: normalized input (float32)', error, 1e-6)
  np.testing.assert_array_equal(denormalize(normalized), golden[f'resized{i}'])
  recovered = golden[f'recover{i}']
  truncated = denormalize(golden[f'out{i}'].transpose(1, 2, 0), truncate=True)
  np.testing.assert_array_equal(truncated, recovered.reshape(truncated.shape))
  assert 0.15 < np.mean(truncated < golden[f'resized{i}']) < 0.3


def test_denormalize_inverts_normalize_for_every_value():
  pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(-1, 3)
  np.testing.assert_array_equal(denormalize(normalize(pixels)), pixels)
  recovered = denormalize(normalize(jnp.asarray(pixels)))
  assert recovered.dtype == np.uint8
  np.testing.assert_array_equal(recovered, pixels)


def test_denormalize_clips_to_the_range_of_pixels():
  np.testing.assert_array_equal(denormalize(np.array([[-9.0, 0.0, 9.0]])), [[0, 116, 255]])


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'P'])
def test_every_mode_becomes_rgb(tmp_path, mode):
  path = tmp_path / 'x.png'
  Image.new('RGB', (5, 6), (51, 51, 51)).convert(mode).save(path)
  np.testing.assert_array_equal(read_image(str(path), (8, 4)), np.full((8, 4, 3), 51))


@pytest.mark.parametrize('suffix', ['.bmp', '.png', '.webp'])
@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'P', '1'])
def test_lossless_formats_have_the_same_pixels(tmp_path, suffix, mode):
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)).convert(mode)
  path = tmp_path / f'x{suffix}'
  image.save(path, **({'lossless': True} if suffix == '.webp' else {}))
  np.testing.assert_array_equal(read_unresized(str(path)), image.convert('RGB'))
  assert read_header(str(path)).orientation == 1


def test_an_animated_webp_is_its_first_frame(tmp_path):
  frames = [Image.new('RGB', (4, 4), (50 * i, 0, 0)) for i in range(3)]
  frames[0].save(tmp_path / 'x.webp', save_all=True, append_images=frames[1:], lossless=True)
  assert not read_unresized(str(tmp_path / 'x.webp')).any()


@pytest.mark.parametrize('suffix', ['bmp', 'webp'])
def test_damaged_files_of_other_formats_are_named(tmp_path, suffix):
  file = io.BytesIO()
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)).save(file, suffix)
  path = tmp_path / 'no.jpg'
  for length in (20, 60, len(file.getvalue()) - 100):
    path.write_bytes(file.getvalue()[:length])
    with pytest.raises(UserError, match=r'no\.jpg: (unreadable|not a readable)'):
      read_unresized(str(path))


def jpeg():
  file = io.BytesIO()
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)).save(file, 'jpeg')
  return file.getvalue()


def gif():
  file = io.BytesIO()
  Image.new('RGB', (4, 4)).save(file, 'gif')
  return file.getvalue()


def damaged_png():
  file = io.BytesIO()
  Image.new('RGB', (4, 4)).save(file, 'png')
  return file.getvalue().replace(b'IDAT', b'IDAX')


BROKEN = {
  'empty': (b'', 'not a readable'),
  'text': (b'hello, not an image', 'not a readable'),
  'half': (jpeg()[:-600], 'truncated'),
  'header': (jpeg()[:100], 'no.jpg'),
  'gif': (gif(), 'not a readable'),
  'png': (damaged_png(), 'unreadable'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_unreadable_file_is_named(tmp_path, name):
  encoded, reason = BROKEN[name]
  path = tmp_path / 'no.jpg'
  path.write_bytes(encoded)
  with pytest.raises(UserError, match=reason) as error:
    read_image(str(path), (8, 4))
  assert str(error.value).count(str(path)) == 1


def test_missing_file_is_named(tmp_path):
  with pytest.raises(UserError, match='No such file') as error:
    read_image(str(tmp_path / 'no.jpg'), (8, 4))
  assert str(error.value).count('no.jpg') == 1


@pytest.fixture
def market_paths(tmp_path):
  index = read_layout(write_market(tmp_path))
  return [path for split in index.splits.values() for path in split.paths]


def verify(paths):
  for_each_file(lambda i: verify_image(paths[i]), paths, threads=2, action='checking')


def test_every_unusable_file_is_listed(market_paths, tmp_path):
  verify(market_paths)
  (tmp_path / 'bounding_box_train' / TRAIN[1]).write_bytes(jpeg()[:-600])
  (tmp_path / 'bounding_box_test' / '0000_c1s1_000151_00.jpg').write_bytes(b'')
  with pytest.raises(UserError, match='2 of 12') as error:
    verify(market_paths)
  assert TRAIN[1] in str(error.value) and '0000_c1s1_000151_00.jpg' in str(error.value)


def test_progress_is_logged(market_paths, monkeypatch, lines):
  monkeypatch.setattr('dgnet_jax.utils.progress.SECONDS_BETWEEN_LINES', -1.0)
  lines.clear()
  verify(market_paths)
  assert len(lines) == 12 and lines[-1].startswith('checking: 12/12') and 'images/s' in lines[-1]


def test_resizing_is_antialiased(tmp_path):
  # With antialiasing lines one pixel wide blend into grey; without, they become black or white.
  pixels = np.zeros((64, 32, 3), np.uint8)
  pixels[::2] = 255
  Image.fromarray(pixels).save(tmp_path / 'x.png')
  small = read_image(str(tmp_path / 'x.png'), (16, 8))
  assert np.abs(small[4:-4].astype(int) - 127).max() < 16


def test_real_crops_are_readable(shared_data_dir):
  index = read_layout(shared_data_dir / 'market_mini')
  verify([path for split in index.splits.values() for path in split.paths])


def test_bilinear_weights_by_hand():
  row = np.array([0.0, 1.0], np.float32).reshape(1, 2, 1)
  np.testing.assert_allclose(resize_bilinear(row, (1, 4))[0, :, 0], [0, 0.25, 0.75, 1])
  column = np.array([0.0, 10.0, 20.0, 30.0, 40.0, 50.0], np.float32).reshape(6, 1, 1)
  np.testing.assert_allclose(resize_bilinear(column, (2, 1))[:, 0, 0], [10, 40])  # only the two nearest pixels count
  np.testing.assert_allclose(resize_bilinear(column, (3, 2))[:, :, 0], [[5, 5], [25, 25], [45, 45]])


@pytest.mark.parametrize('size_hw', [(12, 9), (7, 30), (5, 4), (299, 299)])
def test_bilinear_resizing_agrees_with_jax(size_hw):
  image = np.random.default_rng(0).uniform(size=(12, 9, 3)).astype(np.float32)
  expected = jax.image.resize(image, (*size_hw, 3), 'linear', antialias=False)
  actual = resize_bilinear(image, size_hw)
  assert actual.dtype == np.float32
  np.testing.assert_allclose(actual, expected, atol=1e-5)


def oriented(path, orientation, pixels):
  """Writes an image as a camera does that was held another way: stored turned, with the orientation in Exif."""
  stored = {
    1: pixels,
    2: pixels[:, ::-1],
    3: pixels[::-1, ::-1],
    4: pixels[::-1],
    5: pixels.transpose(1, 0, 2),
    6: np.rot90(pixels, 1),
    7: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: np.rot90(pixels, -1),
  }[orientation]
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  Image.fromarray(np.ascontiguousarray(stored)).save(
    path, exif=exif, **({'quality': 100} if path.suffix == '.jpg' else {})
  )


class TestOrientation:
  pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)

  @pytest.mark.parametrize('orientation', range(1, 9))
  def test_images_become_upright(self, tmp_path, orientation):
    oriented(tmp_path / 'x.png', orientation, self.pixels)
    np.testing.assert_array_equal(read_unresized(str(tmp_path / 'x.png')), self.pixels)
    assert read_header(str(tmp_path / 'x.png')) == ('PNG', orientation)

  @pytest.mark.parametrize('orientation', [1, 3, 6])
  def test_webp_has_an_orientation(self, tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(self.pixels).save(tmp_path / 'x.webp', exif=exif, lossless=True)
    expected = np.rot90(self.pixels, {1: 0, 3: 2, 6: -1}[orientation])
    np.testing.assert_array_equal(read_unresized(str(tmp_path / 'x.webp')), expected)

  @pytest.mark.parametrize('orientation', [3, 6, 8])
  def test_jpeg_from_bytes_and_from_a_file(self, tmp_path, orientation):
    smooth = np.full((48, 32, 3), 200, np.uint8)
    smooth[:16, :16] = 30
    oriented(tmp_path / 'x.jpg', orientation, smooth)
    path = str(tmp_path / 'x.jpg')
    for image in (read_image(path, (48, 32)), decode_image((tmp_path / 'x.jpg').read_bytes(), 'x', (48, 32))):
      assert np.abs(image.astype(int) - smooth).max() < 40 and np.abs(image.astype(int) - smooth).mean() < 2

  @pytest.mark.parametrize('orientation', [0, 9, 77])
  def test_unknown_orientations_are_ignored(self, tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(self.pixels).save(tmp_path / 'x.png', exif=exif)
    np.testing.assert_array_equal(read_unresized(str(tmp_path / 'x.png')), self.pixels)

  def test_damaged_metadata_does_not_spoil_the_pixels(self, tmp_path):
    Image.fromarray(self.pixels).save(tmp_path / 'x.png', exif=b'Exif\0\0MM\0*\xff\xff\xff\xff')
    np.testing.assert_array_equal(read_unresized(str(tmp_path / 'x.png')), self.pixels)

  def test_damaged_file_is_reported_by_its_decoder(self, tmp_path):
    (tmp_path / 'no.jpg').write_bytes(b'no image')
    assert read_header(str(tmp_path / 'no.jpg')) == ('', 1)


def test_a_png_with_a_damaged_byte_is_refused(tmp_path):
  path = tmp_path / 'x.png'
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)).save(path)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0xFF
  path.write_bytes(content)
  for read in (verify_image, read_unresized):
    with pytest.raises(UserError, match='unreadable'):
      read(str(path))
