"""The page's computations on uploaded images. Independent of HTTP, and writes nothing to disk."""

import base64
from collections.abc import Sequence
import io
import os
from typing import Any
import warnings

import numpy as np
from PIL import Image

from dgnet_jax.api import Match, Model
from dgnet_jax.data.image_lists import ImageList
from dgnet_jax.data.images import FORMATS, decode_rgb, read_encoded
from dgnet_jax.data.index import printable
from dgnet_jax.errors import UserError

JsonObject = dict[str, Any]  # images in it are data URIs

MAX_BYTES = 10 * 2**20  # of an upload; photos of phones have 2 to 8 MiB
MAX_PIXELS = 25_000_000  # of an upload: 75 MB when decoded
NUM_FRAMES = 8  # of an interpolation: one batch of a model loaded with the default batch size
NUM_MATCHES = 16  # gallery images shown
THUMBNAIL_SIZE = 256  # pixels, the longer side of a gallery image as it is shown


def decode_upload(content: bytes, name: str) -> np.ndarray:
  """Decodes an uploaded file.

  Args:
    content: bytes of the file.
    name: name of the file in error messages.

  Returns:
    u8[h, w, 3], RGB, in the size of the file.

  Raises:
    UserError: the file is empty, too large, damaged, or not an image in one of `FORMATS`.
  """
  if not content:
    raise UserError(f'{name}: the upload is empty')
  if len(content) > MAX_BYTES:
    raise UserError(f'{name}: {len(content) / 2**20:.1f} MiB; at most {MAX_BYTES // 2**20} MiB are allowed')
  if _num_pixels(content) > MAX_PIXELS:  # before memory is allocated for them
    raise UserError(f'{name}: more than {MAX_PIXELS // 10**6} million pixels; scale it down')
  return np.asarray(decode_rgb(content, name))


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


class PageService:
  """Applies a model to uploaded images; results are ready for JSON."""

  def __init__(self, model: Model, gallery: ImageList | None) -> None:
    """Embeds the gallery.

    Args:
      model: the loaded model.
      gallery: images to search; None disables the search.
    """
    self._model = model
    self._gallery = None if gallery is None else model.gallery(gallery)
    paths = [] if gallery is None else [os.path.abspath(path) for path in gallery.paths]
    self._root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ''

  def read(self, content: bytes, name: str) -> np.ndarray:
    """Decodes an uploaded file as `decode_upload` does, at the size of the networks' input: u8[H, W, 3]."""
    pixels: np.ndarray = self._model.pixels(decode_upload(content, name))[0]
    return pixels

  def warm_up(self) -> None:
    """Compiles the networks, so that the first visitor does not wait for it."""
    gray = np.full((2, *self._model.image_size_hw, 3), 128, np.uint8)
    self._model.swap_grid(structure_from=gray, appearance_from=gray)

  def about(self) -> JsonObject:
    """Describes the model and the limits: {model, num_gallery or None, max_bytes}."""
    model = self._model
    height, width = model.image_size_hw
    return {
      'model': f'{model.workdir.name}, step {model.step:,}, trained on {model.num_identities:,} identities, '
      f'images of {height} x {width} pixels',
      'num_gallery': len(self._gallery.paths) if self._gallery else None,
      'max_bytes': MAX_BYTES,
    }

  def swap(self, first: np.ndarray, second: np.ndarray) -> JsonObject:
    """Puts each of two people into the other's clothes: {first, second}, images named by their structure donor.

    Args:
      first: from `read`, as all images here.
      second: another image.
    """
    people = [first, second]
    grid = self._model.swap_grid(structure_from=people, appearance_from=people)
    return {'first': _data_uri(grid[0, 1]), 'second': _data_uri(grid[1, 0])}

  def interpolate(self, change: str, first: np.ndarray, second: np.ndarray) -> JsonObject:
    """Interpolates from the first person to the first person in the second's clothes or pose: {frames}.

    Args:
      change: clothes or pose.
      first: u8[H, W, 3].
      second: u8[H, W, 3].

    Raises:
      UserError: `change` is something else.
    """
    if change not in ('clothes', 'pose'):
      raise UserError(f'{change!r} is neither clothes nor pose')
    people = [first, second]
    structures, appearances = (people[:1], people) if change == 'clothes' else (people, people[:1])
    frames = self._model.interpolate(structure_from=structures, appearance_from=appearances, steps=NUM_FRAMES)
    return {'frames': [_data_uri(frame) for frame in frames]}

  def rank(self, query: np.ndarray) -> list[Match]:
    """Finds the gallery images most similar to a query, the most similar first.

    Raises:
      UserError: there is no gallery.
    """
    if self._gallery is None:
      raise UserError('there is no gallery to search: start the page with --gallery FOLDER')
    (matches,) = self._model.rank(query, self._gallery, count=NUM_MATCHES)
    return matches

  def show(self, matches: Sequence[Match]) -> JsonObject:
    """Reads the images of matches: {matches: [{score, name, image}]}.

    Raises:
      UserError: an image of the gallery is gone.
    """
    return {
      'matches': [
        {'score': match.score, 'name': self._name(match.path), 'image': _thumbnail(match.path)} for match in matches
      ]
    }

  def _name(self, path: str) -> str:
    """Returns the path within the gallery; visitors do not see the folders above it."""
    return printable(os.path.relpath(os.path.abspath(path), self._root))


def _thumbnail(path: str) -> str:
  image = decode_rgb(read_encoded(path), os.path.basename(path))
  image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
  return _data_uri(np.asarray(image))


def _data_uri(pixels: np.ndarray) -> str:
  """Returns u8[H, W, 3] as a PNG data URI."""
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format='PNG')
  return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'
