"""Image files, from disk and as uploads."""

import io

import numpy as np
from PIL import Image

from dgnet_jax.data import images
from dgnet_jax.data.image_lists import as_image_list
from dgnet_jax.serving.images import decode_upload
from tests.data.jpeg_files import many_scans
from tests.fuzz import mutations
from tests.fuzz.reader import Reader


def _encoded(kind, mode='RGB', **options):
  file = io.BytesIO()
  pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 3), np.uint8)
  Image.fromarray(pixels).resize((24, 40)).convert(mode).save(file, kind, **options)
  return file.getvalue()


exif = Image.Exif()
exif[0x112] = 6
IMAGES = (
  *(
    _encoded('jpeg'),
    _encoded('jpeg', progressive=True),
    _encoded('jpeg', 'CMYK', exif=exif),
    many_scans((40, 30), 20),
  ),
  *(_encoded('bmp'), _encoded('webp')),
  *(_encoded('png'), _encoded('png', 'P', exif=exif), _encoded('png', 'LA'), _encoded('png', '1')),
)

IMAGE_FILES = mutations.mutated(IMAGES, mutations.IMAGE_TOKENS) | mutations.mutated(IMAGES, mutations.IMAGE_TOKENS).map(
  mutations.with_checksums
)


def _read_image(path):
  as_image_list(str(path))
  images.read_header(str(path))
  assert images.read_image(str(path), (8, 4)).shape == (8, 4, 3)


def _decode_upload(path):
  assert decode_upload(path.read_bytes(), path.name).dtype == np.uint8


READERS = {
  'image': Reader('x.jpg', _read_image, IMAGE_FILES),
  'upload': Reader('x.jpg', _decode_upload, IMAGE_FILES),
}
