"""Conversion of the user's images to an ImageList."""

import numpy as np
from PIL import ExifTags, Image
import pytest

from dgnet_jax.data.image_lists import as_image_list
from dgnet_jax.data.images import read_image
from dgnet_jax.errors import UserError

SIZE = (32, 16)


def pixels(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path, array, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path, **options)
  return path


def test_one_image_or_a_list(tmp_path):
  path, array = saved(tmp_path / 'a.png', pixels(40, 30, 3)), pixels(20, 20)
  for image in (path, str(path), array, Image.fromarray(array)):
    assert len(as_image_list(image)) == len(as_image_list([image])) == 1
  images = as_image_list([path, array, str(path)])
  assert images.paths == (str(path), '', str(path)) and images.names[1] == 'image 1'
  assert images.resized(SIZE)[:].shape == (3, *SIZE, 3) and images.resized(SIZE)[:0].shape == (0, *SIZE, 3)
  assert len(as_image_list(pixels(5, 20, 10, 3))) == 5
  assert as_image_list(images) is images


def test_a_folder_stands_for_its_sorted_images(tmp_path):
  for name in ('b.png', 'a.jpg', '.hidden.png'):
    saved(tmp_path / 'images' / name, pixels(8, 8, 3))
  (tmp_path / 'images' / 'notes.txt').write_text('')
  images = as_image_list([tmp_path / 'images', tmp_path / 'images' / 'a.jpg'])
  assert images.paths == tuple(str(tmp_path / 'images' / name) for name in ('a.jpg', 'b.png', 'a.jpg'))


def test_subfolders_belong_to_a_folder(tmp_path, lines):
  folder = tmp_path / 'photos'
  for name in ('b.png', 'anna/2.png', 'anna/1.png', 'anna/old/0.png', '.thumbnails/x.png'):
    saved(folder / name, pixels(8, 8, 3))
  (folder / 'anna' / 'notes.txt').write_text('')
  (folder / 'anna' / '.DS_Store').write_text('')
  (folder / 'anna' / 'back').symlink_to(folder)  # would be endless
  images = as_image_list(folder)
  assert images.paths == tuple(str(folder / name) for name in ('anna/1.png', 'anna/2.png', 'anna/old/0.png', 'b.png'))
  assert any('skipped 1 entries that are not images (anna/notes.txt)' in line for line in lines)


def test_a_pil_image_is_turned_upright_like_its_file(tmp_path):
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 6
  path = saved(tmp_path / 'sideways.png', pixels(8, 12, 3), exif=exif)
  with Image.open(path) as image:
    from_pil = as_image_list(image).resized((12, 8))[:]
  np.testing.assert_array_equal(from_pil, as_image_list(path).resized((12, 8))[:])
  np.testing.assert_array_equal(from_pil[0], np.rot90(pixels(8, 12, 3), -1))


@pytest.mark.parametrize(
  ('mode', 'suffix'),
  [(mode, '.png') for mode in ('RGB', 'RGBA', 'L', 'LA', 'P', '1', 'I;16')] + [('CMYK', '.jpg'), ('L', '.jpg')],
)
def test_pil_images_equal_their_files(tmp_path, mode, suffix):
  array = pixels(40, 30, 4)
  image = {
    'I;16': lambda: Image.fromarray(array[..., 0].astype(np.uint16) * 200),
    'RGBA': lambda: Image.fromarray(array),
    'LA': lambda: Image.fromarray(array).convert('LA'),
  }.get(mode, lambda: Image.fromarray(array[..., :3]).convert(mode))()
  image.save(tmp_path / f'x{suffix}')
  with Image.open(tmp_path / f'x{suffix}') as opened:
    np.testing.assert_array_equal(
      as_image_list(opened).resized(SIZE)[:][0], read_image(str(tmp_path / f'x{suffix}'), SIZE), err_msg=opened.mode
    )


def test_shapes_of_arrays():
  grey = pixels(24, 12)
  expected = np.repeat(grey[..., None], 3, axis=-1)
  for array in (grey, grey[..., None], expected, np.concatenate([expected, pixels(24, 12, 1)], axis=-1)):
    np.testing.assert_array_equal(as_image_list(array).items[0], expected)


@pytest.mark.parametrize(
  ('images', 'words'),
  [
    (np.zeros((4, 4, 3), np.float32), 'number 0: an array of float32; expected uint8'),
    (np.zeros((4, 4, 2), np.uint8), r'shape \(4, 4, 2\)'),
    (np.zeros(4, np.uint8), r'shape \(4,\)'),
    (np.zeros((0, 4, 3), np.uint8), 'without pixels'),
    ([pixels(4, 4), 3], 'number 1: int is not a path'),
    ([], 'people: none given'),
    (Image.new('F', (2, 2)), 'floating-point'),
  ],
)
def test_unsupported_input_is_an_error(images, words):
  with pytest.raises(UserError, match=words):
    as_image_list(images, 'people')


def test_every_bad_file_is_listed(tmp_path):
  path = saved(tmp_path / 'cut.jpg', pixels(64, 64, 3))
  path.write_bytes(path.read_bytes()[:2500])
  (tmp_path / 'text.png').write_text('not an image')
  with pytest.raises(UserError) as caught:
    as_image_list([tmp_path / 'text.png', path, tmp_path / 'absent.jpg', saved(tmp_path / 'good.png', pixels(4, 4, 3))])
  text = str(caught.value)
  assert '3 of 4' in text and all(name in text for name in ('text.png', 'cut.jpg', 'absent.jpg'))
  with Image.open(path) as opened, pytest.raises(UserError, match=r'cut\.jpg'):
    as_image_list(opened)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='empty: no images in this folder'):
    as_image_list(tmp_path / 'empty')
