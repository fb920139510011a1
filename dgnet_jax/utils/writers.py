"""Writes results: images, animations and tables. The suffix of a file selects its format."""

from collections.abc import Mapping, Sequence
import io
import json
import os
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.extras import require_pyarrow
from dgnet_jax.utils.paths import check_writable, local_path

Pixels = npt.NDArray[np.uint8]

IMAGES = ('.png', '.jpg', '.jpeg')
ANIMATIONS = ('.gif',)
EMBEDDINGS = ('.npz', '.parquet')
JPEG_QUALITY = 95  # Pillow's scale; above it files grow without looking better
PNG_LEVEL = 4  # zlib's scale; its default, 6, takes twice as long for files that are 3 % smaller
FRAME_MS = 120  # duration of an animation's frame
END_MS = 600  # duration of the first and the last frame


def check_output(path: str | os.PathLike[str], suffixes: Sequence[str]) -> pathlib.Path:
  """Checks, before work starts, that a file can be written in the format of its suffix.

  Args:
    path: file to write.
    suffixes: the suffixes that are allowed, in lower case.

  Returns:
    `path` as a Path.

  Raises:
    UserError: the suffix is another one, `path` is a folder or cannot be written, or the library that writes the format
      is not installed.
  """
  path = local_path(path)
  if path.suffix.lower() not in suffixes:
    raise UserError(f'{path}: the name must end in {" or ".join(suffixes)}')
  if path.is_dir():
    raise UserError(f'{path}: is a folder')
  check_writable(path)
  if path.suffix.lower() == '.parquet':
    others = [suffix for suffix in suffixes if suffix != '.parquet']
    require_pyarrow(path, f'or write {" or ".join(others)}')
  return path


def check_output_folder(path: str | os.PathLike[str]) -> pathlib.Path:
  """Checks, before work starts, that a folder of Parquet files can be written, and returns it.

  Raises:
    UserError: `path` is a file or cannot be written, or pyarrow is not installed.
  """
  path = local_path(path)
  if path.exists() and not path.is_dir():
    raise UserError(f'{path}: is a file; embeddings in parts need a folder')
  check_writable(path / 'part.parquet')
  require_pyarrow(path, 'or write .npz')
  return path


def save_image(path: str | os.PathLike[str], pixels: Pixels, *, jpeg_quality: int = JPEG_QUALITY) -> pathlib.Path:
  """Writes u8[H, W, 3] as PNG or JPEG and returns the path. Missing folders are created, as by all writers here."""
  path = check_output(path, IMAGES)
  if path.suffix.lower() == '.png':
    content = encoded(Image.fromarray(pixels), format='PNG', compress_level=PNG_LEVEL)
  else:
    content = encoded(Image.fromarray(pixels), format='JPEG', quality=jpeg_quality)
  with atomic_file(path) as temporary:
    temporary.write_bytes(content)
  return path


def encoded(image: Image.Image, **options: Any) -> bytes:
  """Returns the content of an image's file; if PIL wrote the file itself, it would not say that the disk is full.

  Args:
    image: the image.
    **options: arguments of its method `save`.
  """
  file = io.BytesIO()
  image.save(file, **options)
  return file.getvalue()


def save_animation(path: str | os.PathLike[str], frames: Pixels) -> pathlib.Path:
  """Writes u8[N, H, W, 3] as an endless GIF that plays forwards and backwards, and returns the path."""
  path = check_output(path, ANIMATIONS)
  order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
  # One palette for all frames, from all of them side by side: with a palette each, still regions would flicker.
  palette = Image.fromarray(np.concatenate(list(frames), axis=1)).quantize(255)
  images = [Image.fromarray(frames[i]).quantize(palette=palette) for i in order]
  milliseconds = [END_MS if i in (0, len(frames) - 1) else FRAME_MS for i in order]
  content = encoded(images[0], format='GIF', save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
  with atomic_file(path) as temporary:
    temporary.write_bytes(content)
  return path


def save_embeddings(
  path: str | os.PathLike[str],
  paths: Sequence[str],
  embeddings: npt.NDArray[np.floating[Any]],
  shares: npt.NDArray[np.floating[Any]],
) -> pathlib.Path:
  """Writes a table with the columns `path` and `embedding`.

  Args:
    path: .npz (path: str[N], embedding: f32[N, D], share: f32[P]) or .parquet (a fixed-size list of floats in each row,
      and `share` as JSON in the metadata of the schema; bytes of a path that are not text become escapes).
    paths: paths of the N images.
    embeddings: f32[N, D].
    shares: f32[P], the share of each piece of an embedding in dot products.

  Returns:
    `path` as a Path.
  """
  path = check_output(path, EMBEDDINGS)
  if path.suffix.lower() == '.parquet':
    import pyarrow

    column = pyarrow.FixedSizeListArray.from_arrays(embeddings.reshape(-1), embeddings.shape[1])
    columns = {'path': text_column(paths), 'embedding': column}
    return save_table(path, columns, metadata={'share': json.dumps(shares.tolist())})
  with atomic_file(path) as temporary, temporary.open('wb') as file:  # a name, unlike a file, would get a suffix
    np.savez(file, path=np.array(paths, str), embedding=embeddings, share=shares)
  return path


def save_table(
  path: pathlib.Path, columns: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
) -> pathlib.Path:
  """Writes a Parquet file.

  Args:
    path: the file to write.
    columns: one sequence or pyarrow array of N values for each name.
    metadata: of the schema.

  Returns:
    `path`.
  """
  import pyarrow
  import pyarrow.parquet

  table = pyarrow.table(dict(columns), metadata=metadata)
  with atomic_file(path) as temporary, temporary.open('wb') as file:  # pyarrow takes only names that are UTF-8
    pyarrow.parquet.write_table(table, file)
  return path


def text_column(texts: Sequence[str]) -> Any:
  """Returns texts as a pyarrow array; bytes of paths that are not text become escapes."""
  import pyarrow

  return pyarrow.array([text.encode(errors='backslashreplace').decode() for text in texts], 'string')
