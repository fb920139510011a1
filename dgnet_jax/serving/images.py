"""Uploaded files as pixels, within limits, and pixels as PNG files."""

import io
import warnings

import numpy as np
from PIL import Image

from dgnet_jax.data.images import FORMATS, decode_rgb
from dgnet_jax.errors import UserError
from dgnet_jax.serving.errors import Refused

MAX_BYTES = 10 * 2**20  # of an image; photos of phones have 2 to 8 MiB
MAX_PIXELS = 25_000_000  # of an image: 75 MB when decoded


def decode_upload(content: bytes, name: str) -> np.ndarray:
  """Decodes an uploaded file.

  Args:
    content: bytes of the file.
    name: name of the file in error messages.

  Returns:
    u8[h, w, 3], RGB, in the size of the file.

  Raises:
    Refused: the file is empty, too large, damaged, or not an image in one of `FORMATS`.
  """
  if not content:
    raise Refused('invalid', f'{name}: the upload is empty')
  if len(content) > MAX_BYTES:
    size = f'{len(content) / 2**20:.1f} MiB'
    raise Refused('too_large', f'{name}: {size}; at most {MAX_BYTES // 2**20} MiB are allowed')
  if _num_pixels(content) > MAX_PIXELS:  # before memory is allocated for them
    raise Refused('too_large', f'{name}: more than {MAX_PIXELS // 10**6} million pixels; scale it down')
  try:
    return np.asarray(decode_rgb(content, name))
  except UserError as error:
    raise Refused('invalid', str(error)) from error


def _num_pixels(content: bytes) -> float:
  """Returns the number of pixels in the file's header; 0 if it cannot be read, which the decoder reports."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', Image.DecompressionBombWarning)
      with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return image.width * image.height
  except Image.DecompressionBombError:
    return np.inf
  except Exception:  # Pillow raises almost anything on a damaged file
    return 0


def encode_png(pixels: np.ndarray) -> bytes:
  """Returns u8[H, W, 3] as a PNG file."""
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format='PNG')
  return file.getvalue()
