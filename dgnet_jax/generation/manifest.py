"""The manifest: a table of the images that each generated image was made from."""

from collections.abc import Iterable, Iterator, Sequence
import csv
import itertools
import pathlib

from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.parquet_parts import part_files
from dgnet_jax.utils.text import ANY_NAME
from dgnet_jax.utils.writers import save_table, text_column

FILE_NAME = 'manifest.csv'
TABLE_FOLDER = 'manifest_table'
ROWS = 100_000  # in a Parquet file


def write_manifest(path: pathlib.Path, fields: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
  """Writes a CSV file with one row per image.

  Args:
    path: the file to write.
    fields: names of the columns.
    rows: one value per column, with any characters. Bytes of paths that are not text are written unchanged.
  """
  with (
    atomic_file(path) as temporary,
    temporary.open('w', encoding='utf-8', errors=ANY_NAME, newline='') as file,
  ):
    writer = csv.writer(file)
    writer.writerow(fields)
    writer.writerows(rows)


def write_manifest_table(
  folder: pathlib.Path, fields: Sequence[str], rows: Iterator[Sequence[str]], num_rows: int
) -> None:
  """Writes the same table as Parquet files of text columns, `ROWS` rows in memory at a time.

  Args:
    folder: where the files are written; those of a set of another size are removed first.
    fields: names of the columns.
    rows: one value per column.
    num_rows: number of rows.
  """
  files = part_files(folder, num_rows, ROWS)
  for path in folder.glob('*.parquet'):
    if path not in files:
      path.unlink(missing_ok=True)  # another process may do the same
  for file in files:
    columns = zip(*itertools.islice(rows, ROWS), strict=True)
    save_table(file, {field: text_column(values) for field, values in zip(fields, columns, strict=True)})
