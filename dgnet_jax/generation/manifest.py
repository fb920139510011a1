"""The manifest: a table of the images that each generated image was made from."""

from collections.abc import Iterable, Sequence
import csv
import pathlib

from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.text import ANY_NAME

FILE_NAME = 'manifest.csv'


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
