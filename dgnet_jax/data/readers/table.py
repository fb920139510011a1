"""A CSV file with a row for each image: path, identity, camera and split."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import csv
import os
import pathlib
import re
from typing import Any, TextIO

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.index import UNIDENTIFIED, LabeledImage, summarize
from dgnet_jax.data.layouts import SPLITS, Layout
from dgnet_jax.data.readers.identity_folders import mark_unidentified
from dgnet_jax.data.readers.labels import camera_label, clean, identity_label
from dgnet_jax.data.readers.listing import ReadImages
from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.bounded_files import open_table
from dgnet_jax.utils.text import ANY_NAME, shortened

COLUMNS = ('path', 'identity', 'camera', 'split')
SUFFIX = '.csv'
SEPARATORS = ',;\t|'


def _columns(line: str, separator: str) -> list[str]:
  """Returns the names of the columns in the first line."""
  return [clean(name).lower() for name in next(csv.reader([line], delimiter=separator), [])]


def read_header(file: TextIO, columns: Sequence[str], expected: str) -> tuple[str, list[str], int]:
  """Reads the first line, after the line sep=; that spreadsheets may write.

  Args:
    file: an open table.
    columns: names that must be among those of the columns.
    expected: an example of the first line, for messages.

  Returns:
    The separator, the names of the columns, and the number of lines read.

  Raises:
    UserError: a column is missing, or there twice.
  """
  line, num_lines = file.readline(), 1
  if re.fullmatch(r'"?sep=.?"?', line.strip(), re.IGNORECASE):
    line, num_lines = file.readline(), 2
  separator = max(SEPARATORS, key=lambda separator: len(set(columns) & set(_columns(line, separator))))
  names = _columns(line, separator)
  missing = [name for name in columns if name not in names]
  twice = [name for name in columns if names.count(name) > 1]
  if missing or twice:
    problem = f'no column {", ".join(missing)}' if missing else f'two columns {", ".join(twice)}'
    raise UserError(f'{problem}; the first line must be {expected}')
  return separator, names, num_lines


def _labeled(row: Mapping[str | None, Any], folder: pathlib.Path) -> tuple[str, LabeledImage]:
  """Returns the split and the image of a row; raises ValueError if it is wrong."""
  if any(cell.strip() for cell in row.get(None, ())) or any(row[name] is None for name in COLUMNS):
    raise ValueError('the number of values differs from the header')
  if not row['path'].strip():
    raise ValueError('no path')
  if '\0' in row['path']:
    raise ValueError(f'a path with a zero byte, {summarize([shortened(row["path"])])}')
  labels = {}
  for name, read_label in (('identity', identity_label), ('camera', camera_label)):
    try:
      labels[name] = read_label(row[name])
    except ValueError as error:
      raise ValueError(f'no {name} ({error})') from error
  split = clean(row['split']).lower()
  if split not in SPLITS:
    raise ValueError(f'split {shortened(row["split"])!r} is not one of {", ".join(SPLITS)}')
  return split, LabeledImage(os.path.join(folder, row['path']), **labels)


def is_empty(row: Mapping[str | None, Any]) -> bool:
  """Returns True for a row of separators alone, which spreadsheets write below the table."""
  return not any(cell and ''.join(cell).strip() for cell in row.values())


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> ReadImages:
  """Reads a table, without looking at any image; paths are relative to the table's folder.

  The columns may be in any order among others, and separated by commas, semicolons, tabs or bars.

  Args:
    layout: row of the registry.
    root: path of the file.
    data_config: not read.

  Raises:
    UserError: the file cannot be read, a column is missing, or rows are wrong.
  """
  if root.is_dir():
    raise UserError(f'{root}: a folder; name the {SUFFIX} file')
  images: dict[str, list[LabeledImage]] = {}
  problems, line = [], 1
  try:
    with open_table(root) as file:
      separator, names, num_lines = read_header(file, COLUMNS, layout.example)
      reader = csv.DictReader(file, names, delimiter=separator)
      for row in reader:
        line = num_lines + reader.line_num
        if is_empty(row):
          continue
        try:
          split, image = _labeled(row, root.parent)
          images.setdefault(split, []).append(image)
        except ValueError as error:
          problems.append(f'line {line}: {error}')
  except UserError as error:
    raise UserError(f'{root}: {error}') from error
  except csv.Error as error:
    raise UserError(f'{root}, after line {line}: not CSV ({error})') from error
  except UnicodeError as error:
    raise UserError(f'{root}, after line {line}: not text ({error})') from error
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
  """Writes a table for `read` atomically, with paths relative to its folder.

  Raises:
    UserError: identities or cameras have names that `read` would not tell apart, or refuse.
  """
  everything = [image for rows in images.values() for image in rows]
  _check_readable('identity', {image.identity for image in everything} - UNIDENTIFIED.keys(), identity_label)
  _check_readable('camera', {image.camera for image in everything}, camera_label)
  folder = os.path.abspath(path.parent)
  with atomic_file(path) as partial, partial.open('w', encoding='utf-8', errors=ANY_NAME, newline='') as file:
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for split, rows in images.items():
      for image in rows:
        writer.writerow([os.path.relpath(image.path, folder), image.identity, image.camera, split])


def _check_readable(kind: str, names: Iterable[str], read_label: Callable[[str], str]) -> None:
  seen: dict[str, str] = {}
  for name in sorted(names):
    try:
      label = read_label(name)
    except ValueError as error:
      raise UserError(f'{kind} {name!r} cannot be written to a table ({error}); rename it') from error
    if seen.setdefault(label, name) != name:
      raise UserError(f'{kind} {seen[label]!r} and {name!r} would be one in a table; rename one of them')
