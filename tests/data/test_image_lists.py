"""Images as people hand them over."""

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.data.image_lists import collect
from dgnet_jax.data.images import read_image
from dgnet_jax.errors import UserError

SIZE = (32, 16)


def pixels(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path, array, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path, **options)
  return path


def test_one_or_many(tmp_path):
  path, array = saved(tmp_path / 'a.png', pixels(40, 30, 3)), pixels(20, 20)
  for one in (path, str(path), array, Image.fromarray(array)):
    assert len(collect(one)) == len(collect([one])) == 1
  given = collect([path, array, str(path)])
  assert given.paths == (str(path), '', str(path)) and given.names[1] == 'image 1'
  assert given.resized(SIZE)[:].shape == (3, *SIZE, 3) and given.resized(SIZE)[:0].shape == (0, *SIZE, 3)
  assert len(collect(pixels(5, 20, 10, 3))) == 5
  assert collect(given) is given


def test_a_folder_is_its_images_in_order(tmp_path):
  for name in ('b.png', 'a.jpg', '.hidden.png'):
    saved(tmp_path / 'images' / name, pixels(8, 8, 3))
  (tmp_path / 'images' / 'notes.txt').write_text('')
  given = collect([tmp_path / 'images', tmp_path / 'images' / 'a.jpg'])
  assert given.paths == tuple(str(tmp_path / 'images' / name) for name in ('a.jpg', 'b.png', 'a.jpg'))


@pytest.mark.parametrize(
  ('mode', 'suffix'),
  [(mode, '.png') for mode in ('RGB', 'RGBA', 'L', 'LA', 'P', '1', 'I;16')] + [('CMYK', '.jpg'), ('L', '.jpg')],
)
def test_images_and_files_are_the_same(tmp_path, mode, suffix):
  array = pixels(40, 30, 4)
  image = {
    'I;16': lambda: Image.fromarray(array[..., 0].astype(np.uint16) * 200),
    'RGBA': lambda: Image.fromarray(array),
    'LA': lambda: Image.fromarray(array).convert('LA'),
  }.get(mode, lambda: Image.fromarray(array[..., :3]).convert(mode))()
  image.save(tmp_path / f'x{suffix}')
  with Image.open(tmp_path / f'x{suffix}') as opened:
    np.testing.assert_array_equal(
      collect(opened).resized(SIZE)[:][0], read_image(str(tmp_path / f'x{suffix}'), SIZE), err_msg=opened.mode
    )


def test_forms_of_arrays():
  grey = pixels(24, 12)
  expected = np.repeat(grey[..., None], 3, axis=-1)
  for form in (grey, grey[..., None], expected, np.concatenate([expected, pixels(24, 12, 1)], axis=-1)):
    np.testing.assert_array_equal(collect(form).items[0], expected)


@pytest.mark.parametrize(
  ('given', 'words'),
  [
    (np.zeros((4, 4, 3), np.float32), 'number 0: an array of float32; images are uint8'),
    (np.zeros((4, 4, 2), np.uint8), r'shape \(4, 4, 2\)'),
    (np.zeros(4, np.uint8), r'shape \(4,\)'),
    (np.zeros((0, 4, 3), np.uint8), 'without pixels'),
    ([pixels(4, 4), 3], 'number 1: int is no path'),
    ([], 'people: none given'),
    (Image.new('F', (2, 2)), 'floating-point'),
  ],
)
def test_what_is_no_image(given, words):
  with pytest.raises(UserError, match=words):
    collect(given, 'people')


def test_all_bad_files_are_named(tmp_path):
  path = saved(tmp_path / 'cut.jpg', pixels(64, 64, 3))
  path.write_bytes(path.read_bytes()[:2500])
  (tmp_path / 'text.png').write_text('no image')
  with pytest.raises(UserError) as caught:
    collect([tmp_path / 'text.png', path, tmp_path / 'absent.jpg', saved(tmp_path / 'good.png', pixels(4, 4, 3))])
  text = str(caught.value)
  assert '3 of 4' in text and all(name in text for name in ('text.png', 'cut.jpg', 'absent.jpg'))
  with Image.open(path) as opened, pytest.raises(UserError, match=r'cut\.jpg'):
    collect(opened)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='empty: no images in this folder'):
    collect(tmp_path / 'empty')
