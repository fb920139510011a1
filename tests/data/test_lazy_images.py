"""Image sequences read in slices: files, and an array in another order."""

import numpy as np
from PIL import Image

from dgnet_jax.data.lazy_images import BilinearImageFiles, ImageFiles, ReorderedImages
from tests.data.folders import write_image

HEIGHT, WIDTH = 8, 4


def images(count):
  return np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_image_files_decode_only_the_slice(tmp_path):
  paths = []
  for i, image in enumerate(images(5)):
    paths.append(tmp_path / f'{i}.png')
    Image.fromarray(image).save(paths[-1])
  files = ImageFiles([*paths, tmp_path / 'missing.png'], (HEIGHT, WIDTH))
  assert len(files) == 6
  np.testing.assert_array_equal(files[1:4], images(5)[1:4])
  assert files[6:9].shape == (0, HEIGHT, WIDTH, 3)


def test_reordered_images_follow_the_index():
  source, index = images(4), np.array([3, 0, 0, 2])
  images_in_order = ReorderedImages(source, index)
  assert len(images_in_order) == 4
  np.testing.assert_array_equal(images_in_order[1:9], source[[0, 0, 2]])


def test_bilinear_files_are_resized_from_their_own_sizes(tmp_path):
  paths = []
  for seed, size_hw in enumerate(((20, 9), (8, 30), (16, 12))):
    paths.append(str(tmp_path / f'{seed}.png'))
    write_image(paths[-1], seed=seed, size_hw=size_hw)
  files = BilinearImageFiles(paths, (16, 12))
  resized = files[1:]
  assert len(files) == 3 and resized.shape == (2, 16, 12, 3) and resized.dtype == np.float32
  assert resized.min() >= -1 and resized.max() <= 1
  with Image.open(paths[2]) as image:
    np.testing.assert_allclose(resized[1], np.asarray(image) / 127.5 - 1, atol=1e-6)
  assert files[3:].shape == (0, 16, 12, 3)
