"""Small data sets in Market-1501's layout, written for tests."""

import numpy as np
from PIL import Image

# Two images of identity 2, one of identity 7, three of identity 10.
TRAIN = (
  '0002_c1s1_000451_03.jpg',
  '0002_c3s1_000551_00.jpg',
  '0007_c2s3_069327_00.jpg',
  '0010_c6s4_002427_02.jpg',
  '0010_c6s4_002430_01.jpg',
  '0010_c1s1_000001_01.jpg',
)
QUERY = ('0003_c1s1_000151_00.jpg', '0004_c2s1_000151_00.jpg')
GALLERY = ('-1_c1s1_000151_00.jpg', '0000_c1s1_000151_00.jpg', '0003_c5s1_000251_00.jpg', '0004_c1s1_000251_00.jpg')


def write_image(path, seed=0, size_hw=(20, 9)):
  """Writes a smooth random image, which JPEG changes little."""
  coarse = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), np.uint8)
  image = Image.fromarray(coarse).resize(size_hw[::-1], Image.Resampling.BICUBIC)
  # Pillow does not find the suffix of a name like `..jpg`.
  image.save(path, 'png' if str(path).lower().endswith('.png') else 'jpeg')


def write_images(root, *paths):
  """Writes an image at each path relative to `root`, which is returned."""
  for seed, path in enumerate(paths):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    write_image(root / path, seed=seed)
  return root


def write_market(root, train=TRAIN, query=QUERY, gallery=GALLERY, multi_query=()):
  """Writes Market-1501's folders with these files; gt_bbox only if it has any."""
  folders = {'bounding_box_train': train, 'query': query, 'bounding_box_test': gallery, 'gt_bbox': multi_query}
  for seed, (folder, names) in enumerate(folders.items()):
    if names or folder != 'gt_bbox':
      (root / folder).mkdir()
    for i, name in enumerate(names):
      write_image(root / folder / name, seed=100 * seed + i)
  return root
