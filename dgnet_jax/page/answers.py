"""What the page shows of uploaded images. Knows nothing of the web, and writes nothing to disk."""

import base64
import io
import os
from typing import Any
import warnings

import numpy as np
from PIL import Image

from dgnet_jax.api import Model
from dgnet_jax.data.image_lists import ImageList
from dgnet_jax.data.images import FORMATS, decode_rgb
from dgnet_jax.data.index import printable
from dgnet_jax.errors import UserError

Answer = dict[str, Any]  # as JSON; images are data URIs

MAX_BYTES = 10 * 2**20  # of an upload; a phone's image has 2 to 8 MiB
MAX_PIXELS = 25_000_000  # of an upload: 75 MB once decoded
FRAMES = 8  # of an interpolation: one batch of a model as it is loaded by default
MATCHES = 16  # shown of the gallery
THUMBNAIL = 256  # pixels, the longer side of a gallery image as it is shown


def decode_upload(contents: bytes, name: str) -> np.ndarray:
  """Decodes a file that somebody sent.

  Args:
    contents: of the file.
    name: what to call it.

  Returns:
    u8[h, w, 3], RGB, of its own size.

  Raises:
    UserError: it is empty, too large, no JPEG or PNG image, or damaged.
  """
  if not contents:
    raise UserError(f'{name}: no image came')
  if len(contents) > MAX_BYTES:
    raise UserError(f'{name}: {len(contents) / 2**20:.1f} MiB; {MAX_BYTES // 2**20} MiB are allowed')
  if _num_pixels(contents) > MAX_PIXELS:  # before memory is taken for them
    raise UserError(f'{name}: more than {MAX_PIXELS // 10**6} million pixels; make it smaller')
  return np.asarray(decode_rgb(io.BytesIO(contents), name))


def _num_pixels(contents: bytes) -> float:
  """As the header has it; 0 where there is none to read, of which the decoder tells."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', Image.DecompressionBombWarning)
      with Image.open(io.BytesIO(contents), formats=FORMATS) as image:
        return image.width * image.height
  except Image.DecompressionBombError:
    return np.inf
  except Exception:  # whatever a damaged file makes Pillow raise
    return 0


class Answers:
  """A model and a gallery, asked with the contents of image files; answers are ready for JSON.

  Args:
    model: as loaded.
    gallery: images to search, embedded here, once; None leaves searching out.
  """

  def __init__(self, model: Model, gallery: ImageList | None) -> None:
    self._model = model
    self._gallery = None if gallery is None else model.gallery(gallery)
    paths = [] if gallery is None else [os.path.abspath(path) for path in gallery.paths]
    self._root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ''

  def warm_up(self) -> None:
    """Compiles what the first visitor would otherwise wait for."""
    grey = np.full((2, *self._model.image_size_hw, 3), 128, np.uint8)
    self._model.swap_grid(structure_from=grey, appearance_from=grey)

  def about(self) -> Answer:
    """What the page has to know: {model, num_gallery or None, max_bytes}."""
    model = self._model
    height, width = model.image_size_hw
    return {
      'model': f'{model.workdir.name}, step {model.step:,}, trained on {model.num_identities:,} people, '
      f'images of {height} x {width} pixels',
      'num_gallery': len(self._gallery.paths) if self._gallery else None,
      'max_bytes': MAX_BYTES,
    }

  def swap(self, first: bytes, second: bytes) -> Answer:
    """Each of two people in the other's clothes: {first, second: image of who gives the pose}."""
    people = _pair(first, second)
    grid = self._model.swap_grid(structure_from=people, appearance_from=people)
    return {'first': _data_uri(grid[0, 1]), 'second': _data_uri(grid[1, 0])}

  def interpolate(self, what: str, first: bytes, second: bytes) -> Answer:
    """From the first person to the first in the second's clothes or pose: {frames: images}.

    Args:
      what: clothes or pose.
      first: contents of an image file.
      second: likewise.

    Raises:
      UserError: also when `what` is something else.
    """
    if what not in ('clothes', 'pose'):
      raise UserError(f'{what!r} is neither clothes nor pose')
    both = _pair(first, second)
    structures, appearances = (both[:1], both) if what == 'clothes' else (both, both[:1])
    made = self._model.interpolate(structure_from=structures, appearance_from=appearances, steps=FRAMES)
    return {'frames': [_data_uri(frame) for frame in made]}

  def rank(self, query: bytes) -> Answer:
    """The likest images of the gallery: {matches: [{score, name, image}]}, the likest first.

    Raises:
      UserError: also without a gallery, or when an image of it has gone.
    """
    if self._gallery is None:
      raise UserError('there is no gallery to search: start the page with --gallery FOLDER')
    image = decode_upload(query, 'the image')
    (matches,) = self._model.rank(image, self._gallery, count=MATCHES)
    return {
      'matches': [
        {'score': match.score, 'name': self._name(match.path), 'image': _thumbnail(match.path)} for match in matches
      ]
    }

  def _name(self, path: str) -> str:
    """The folder is not shown to visitors; what is below it tells images apart."""
    return printable(os.path.relpath(os.path.abspath(path), self._root))


def _pair(first: bytes, second: bytes) -> list[np.ndarray]:
  return [decode_upload(first, 'image A'), decode_upload(second, 'image B')]


def _thumbnail(path: str) -> str:
  image = decode_rgb(path, os.path.basename(path))
  image.thumbnail((THUMBNAIL, THUMBNAIL))
  return _data_uri(np.asarray(image))


def _data_uri(pixels: np.ndarray) -> str:
  """u8[H, W, 3] as a PNG that stands in the page itself."""
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format='PNG')
  return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'
