"""A CSV file with a row for each image: path, identity, camera and split."""

from collections.abc import Mapping, Sequence
import csv
import os
import pathlib
from typing import Any

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.index import LabeledImage, summarize
from dgnet_jax.data.layouts import SPLITS, Layout
from dgnet_jax.data.readers.identity_folders import mark_unidentified
from dgnet_jax.data.readers.listing import ReadImages
from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.text import ANY_NAME

COLUMNS = ('path', 'identity', 'camera', 'split')
SUFFIX = '.csv'


def _problem_with(row: Mapping[str | None, Any]) -> str:
  """Returns the problem with a row, or ''."""
  if None in row or any(row[name] is None for name in COLUMNS):
    return 'the number of values differs from the header'
  empty = [name for name in COLUMNS if not row[name].strip()]
  if empty:
    return f'no {", ".join(empty)}'
  return '' if row['split'].strip() in SPLITS else f'split {row["split"]!r} is not one of {", ".join(SPLITS)}'


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> ReadImages:
  """Reads a table, without looking at any image; paths are relative to the table's folder.

  Args:
    layout: row of the registry.
    root: path of the file.
    data_config: not read.

  Raises:
    UserError: the file cannot be read, a column is missing, or rows are wrong.
  """
  if root.is_dir():
    raise UserError(f'{root}: a folder; data.root must name the {SUFFIX} file')
  images: dict[str, list[LabeledImage]] = {}
  problems = []
  try:
    # File names may contain any byte but 0, so undecodable bytes are kept.
    with root.open(encoding='utf-8-sig', errors='surrogateescape', newline='') as file:
      reader = csv.DictReader(file)
      missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
      if missing:
        raise UserError(f'{root}: no column {", ".join(missing)}; the first line must be {layout.example}')
      for row in reader:
        problem = _problem_with(row)
        if problem:
          problems.append(f'line {reader.line_num}: {problem}')
        else:
          path = os.path.join(root.parent, row['path'])
          image = LabeledImage(path, row['identity'].strip(), row['camera'].strip())
          images.setdefault(row['split'].strip(), []).append(image)
  except csv.Error as error:
    raise UserError(f'{root}, line {reader.line_num}: not CSV ({error})') from error
  except OSError as error:
    raise UserError(f'{root}: cannot be read ({error.strerror})') from error
  if problems:
    raise UserError(f'{root}: {len(problems)} wrong rows: {summarize(problems, "; ")}')
  if not images:
    raise UserError(f'{root}: no images in it')
  return ReadImages(mark_unidentified(images), root.parent)


def matches(layout: Layout, root: pathlib.Path) -> bool:
  """Returns True if `root` is a file with the suffix .csv."""
  return root.suffix.lower() == SUFFIX and root.is_file()


def write_table(path: pathlib.Path, images: Mapping[str, Sequence[LabeledImage]]) -> None:
  """Writes a table for `read` atomically, with paths relative to its folder."""
  folder = os.path.abspath(path.parent)
  with atomic_file(path) as partial, partial.open('w', encoding='utf-8', errors=ANY_NAME, newline='') as file:
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for split, rows in images.items():
      for image in rows:
        writer.writerow([os.path.relpath(image.path, folder), image.identity, image.camera, split])
