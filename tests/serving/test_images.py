"""Uploaded files as pixels."""

import io

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.serving.errors import Refused
from dgnet_jax.serving.images import MAX_BYTES, decode_upload


def encoded(size=(4, 6), form='PNG', mode='RGB'):
  file = io.BytesIO()
  Image.new(mode, size).save(file, form)
  return file.getvalue()


def test_uploads_are_decoded_in_their_own_size(images):
  with Image.open(images[0]) as file:
    np.testing.assert_array_equal(decode_upload(images[0].read_bytes(), 'name'), np.asarray(file))
  for form, mode in (('PNG', 'RGBA'), ('BMP', 'RGB'), ('WEBP', 'RGB')):
    assert decode_upload(encoded(form=form, mode=mode), 'name').shape == (6, 4, 3)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'name: the upload is empty'),
    (b'a' * (MAX_BYTES + 1), 'name: 10.0 MiB; at most 10 MiB are allowed'),
    (b'not an image', 'name: not a readable JPEG, PNG, BMP or WebP image'),
    (encoded(form='GIF'), 'name: not a readable JPEG, PNG, BMP or WebP image'),
    (encoded((64, 64), 'JPEG')[:300], 'name: '),
    (encoded((5001, 5000), mode='1'), 'name: more than 25 million pixels'),
    (encoded((10_000, 10_000), mode='1'), 'name: more than 25 million pixels'),  # Pillow warns
    (encoded((20_000, 10_000), mode='1'), 'name: more than 25 million pixels'),  # Pillow refuses
    (encoded((5001, 5000), 'BMP', '1'), 'name: more than 25 million pixels'),
  ],
  ids=['empty', 'bytes', 'text', 'gif', 'truncated', 'pixels', 'bomb', 'big bomb', 'bmp'],
)
def test_unusable_uploads_are_refused(content, message):
  with pytest.raises(Refused, match=message) as caught:
    decode_upload(content, 'name')
  assert caught.value.code == ('too_large' if 'MiB' in message or 'pixels' in message else 'invalid')
