"""What is handed to people: images, animations, tables of embeddings. The name says the form; files appear whole."""

from collections.abc import Sequence
import importlib.util
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import whole_file

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

IMAGES = ('.png', '.jpg', '.jpeg')
ANIMATIONS = ('.gif',)
EMBEDDINGS = ('.npz', '.parquet')
JPEG_QUALITY = 95  # Pillow's scale; above it files grow without looking better
FRAME_MS = 120  # of an animation
END_MS = 600  # its first and its last frame


def check_output(path: str | os.PathLike[str], suffixes: Sequence[str]) -> pathlib.Path:
  """Whether a file of one of these forms could be written; asked before work starts.

  Raises:
    UserError: another suffix, a folder of this name, or the library that writes the form is not installed.
  """
  path = pathlib.Path(path)
  if path.suffix.lower() not in suffixes:
    raise UserError(f'{path}: the name must end in {" or ".join(suffixes)}')
  if path.is_dir():
    raise UserError(f'{path}: is a folder')
  if path.suffix.lower() == '.parquet' and importlib.util.find_spec('pyarrow') is None:
    raise UserError(f"{path}: Parquet needs pyarrow: pip install 'dgnet_jax[parquet]', or write .npz")
  return path


def save_image(path: str | os.PathLike[str], pixels: Pixels, *, jpeg_quality: int = JPEG_QUALITY) -> pathlib.Path:
  """Writes u8[H, W, 3] as PNG or JPEG. Missing folders are made, here and below."""
  path = check_output(path, IMAGES)
  with whole_file(path) as aside:
    if path.suffix.lower() == '.png':
      Image.fromarray(pixels).save(aside, format='PNG')
    else:
      Image.fromarray(pixels).save(aside, format='JPEG', quality=jpeg_quality)
  return path


def save_animation(path: str | os.PathLike[str], frames: Pixels) -> pathlib.Path:
  """Writes u8[N, H, W, 3] as an endless GIF that runs forth and back."""
  path = check_output(path, ANIMATIONS)
  order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
  # One palette for all, of the images side by side: with one each, still parts would flicker.
  palette = Image.fromarray(np.concatenate(list(frames), axis=1)).quantize(255)
  shown = [Image.fromarray(frames[i]).quantize(palette=palette) for i in order]
  milliseconds = [END_MS if i in (0, len(frames) - 1) else FRAME_MS for i in order]
  with whole_file(path) as aside:
    shown[0].save(aside, format='GIF', save_all=True, append_images=shown[1:], duration=milliseconds, loop=0)
  return path


def save_embeddings(path: str | os.PathLike[str], paths: Sequence[str], embeddings: np.ndarray) -> pathlib.Path:
  """Writes two columns, `path` and `embedding`.

  Args:
    path: .npz (path: str[N], embedding: f32[N, D]) or .parquet (a fixed-size list of float in each row).
    paths: of N images.
    embeddings: f32[N, D].
  """
  path = check_output(path, EMBEDDINGS)
  with whole_file(path) as aside:
    if path.suffix.lower() == '.npz':
      with aside.open('wb') as file:  # a name would get another suffix
        np.savez(file, path=np.array(paths, str), embedding=embeddings)
    else:
      import pyarrow
      import pyarrow.parquet

      column = pyarrow.FixedSizeListArray.from_arrays(embeddings.reshape(-1), embeddings.shape[1])
      pyarrow.parquet.write_table(pyarrow.table({'path': pyarrow.array(paths, 'string'), 'embedding': column}), aside)
  return path
