"""The images that builds of a gallery have left out, and why: `bad.csv`."""

from collections.abc import Mapping
import csv
import pathlib

from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.bounded_files import open_table
from dgnet_jax.utils.text import ANY_NAME

BAD_FILES = 'bad.csv'
COLUMNS = ('path', 'problem')


def read_bad_files(folder: pathlib.Path) -> dict[str, str]:
  """Returns what is wrong with the images that are left out, by their absolute paths; empty if there are none.

  Raises:
    UserError: the file is damaged.
  """
  path = folder / BAD_FILES
  try:
    with open_table(path) as file:
      rows = list(csv.reader(file))
  except FileNotFoundError:
    return {}
  except (OSError, csv.Error, UnicodeError) as error:
    raise UserError(f'{path}: cannot be read ({getattr(error, "strerror", None) or error}); delete it') from error
  return {row[0]: row[1] for row in rows[1:] if len(row) == len(COLUMNS)}


def write_bad_files(folder: pathlib.Path, problems: Mapping[str, str]) -> None:
  """Writes the file, or removes it if there are no problems; arguments are as `read_bad_files` returns them."""
  path = folder / BAD_FILES
  if not problems:
    path.unlink(missing_ok=True)
    return
  with atomic_file(path) as temporary, temporary.open('w', encoding='utf-8', errors=ANY_NAME, newline='') as file:
    csv.writer(file).writerows([COLUMNS, *problems.items()])
