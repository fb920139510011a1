"""A CSV with an image in each row: where it is, who is on it, which camera saw it, which split it belongs to."""

from collections.abc import Mapping, Sequence
import csv
import os
import pathlib
from typing import Any

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.index import Image, name_some
from dgnet_jax.data.layouts import SPLITS, Layout
from dgnet_jax.data.readers.identity_folders import name_nobody
from dgnet_jax.data.readers.listing import Found
from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import whole_file

COLUMNS = ('path', 'identity', 'camera', 'split')
SUFFIX = '.csv'


def _wrong_row(row: Mapping[str | None, Any]) -> str:
  """What is wrong with a row, or ''."""
  if None in row or any(row[name] is None for name in COLUMNS):
    return 'not as many values as the header has names'
  empty = [name for name in COLUMNS if not row[name].strip()]
  if empty:
    return f'no {", ".join(empty)}'
  return '' if row['split'].strip() in SPLITS else f'split {row["split"]!r} is none of {", ".join(SPLITS)}'


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> Found:
  """Reads a table; paths in it are relative to its folder. Looks at no image.

  Args:
    layout: of the registry.
    root: the file.
    data_config: not read.

  Raises:
    UserError: it cannot be read, a column is missing, or rows are wrong; names the file and the lines.
  """
  if root.is_dir():
    raise UserError(f'{root}: a folder; data.root must name the {SUFFIX} file')
  images: dict[str, list[Image]] = {}
  problems = []
  try:
    # Names may hold any byte but 0: what is no text comes through as it is.
    with root.open(encoding='utf-8-sig', errors='surrogateescape', newline='') as file:
      reader = csv.DictReader(file)
      missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
      if missing:
        raise UserError(f'{root}: no column {", ".join(missing)}; the first line must be {layout.example}')
      for row in reader:
        problem = _wrong_row(row)
        if problem:
          problems.append(f'line {reader.line_num}: {problem}')
        else:
          image = Image(os.path.join(root.parent, row['path']), row['identity'].strip(), row['camera'].strip())
          images.setdefault(row['split'].strip(), []).append(image)
  except csv.Error as error:
    raise UserError(f'{root}, line {reader.line_num}: no CSV ({error})') from error
  except OSError as error:
    raise UserError(f'{root}: cannot be read ({error.strerror})') from error
  if problems:
    raise UserError(f'{root}: {len(problems)} wrong rows: {name_some(problems, "; ")}')
  if not images:
    raise UserError(f'{root}: no images in it')
  return Found(name_nobody(images), root.parent)


def recognise(layout: Layout, root: pathlib.Path) -> bool:
  """Whether it is a file that is called a CSV."""
  return root.suffix.lower() == SUFFIX and root.is_file()


def write_table(path: pathlib.Path, images: Mapping[str, Sequence[Image]]) -> None:
  """Writes what `read` reads, whole or not at all; paths become relative to the table's folder."""
  folder = os.path.abspath(path.parent)
  with whole_file(path) as aside, aside.open('w', encoding='utf-8', errors='surrogateescape', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for split, found in images.items():
      for image in found:
        writer.writerow([os.path.relpath(image.path, folder), image.identity, image.camera, split])
