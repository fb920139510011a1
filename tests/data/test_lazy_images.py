"""Images by slices: from files and from an array in another order."""

import numpy as np
from PIL import Image

from dgnet_jax.data.lazy_images import BilinearFiles, Chosen, ImageFiles
from tests.data.folders import write_image

HEIGHT, WIDTH = 8, 4


def images(count):
  return np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_image_files_read_only_what_is_asked(tmp_path):
  paths = []
  for i, image in enumerate(images(5)):
    paths.append(tmp_path / f'{i}.png')
    Image.fromarray(image).save(paths[-1])
  files = ImageFiles([*paths, tmp_path / 'missing.png'], (HEIGHT, WIDTH))
  assert len(files) == 6
  np.testing.assert_array_equal(files[1:4], images(5)[1:4])
  assert files[6:9].shape == (0, HEIGHT, WIDTH, 3)


def test_chosen_gathers_in_the_order_given():
  source, index = images(4), np.array([3, 0, 0, 2])
  chosen = Chosen(source, index)
  assert len(chosen) == 4
  np.testing.assert_array_equal(chosen[1:9], source[[0, 0, 2]])


def test_bilinear_files_keep_their_own_size(tmp_path):
  paths = []
  for seed, size_hw in enumerate(((20, 9), (8, 30), (16, 12))):
    paths.append(str(tmp_path / f'{seed}.png'))
    write_image(paths[-1], seed=seed, size_hw=size_hw)
  files = BilinearFiles(paths, (16, 12))
  found = files[1:]
  assert len(files) == 3 and found.shape == (2, 16, 12, 3) and found.dtype == np.float32
  assert found.min() >= -1 and found.max() <= 1
  with Image.open(paths[2]) as image:
    np.testing.assert_allclose(found[1], np.asarray(image) / 127.5 - 1, atol=1e-6)
  assert files[3:].shape == (0, 16, 12, 3)
