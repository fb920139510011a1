"""Names of the files of a table that is written in parts, one Parquet file after the other, and its plan.

The plan says what the table is made from, so that a job that was stopped continues no other table. Readers of a folder
of Parquet files ignore it, as all names with an underscore.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, read_json

PLAN_FILE = '_plan.json'
MAX_PARTS = 10**5  # numbers have five digits


def part_files(folder: pathlib.Path, num_rows: int, rows: int) -> list[pathlib.Path]:
  """Returns the files of a table, in order.

  Args:
    folder: where they are.
    num_rows: of the table.
    rows: in a file; the last one may have fewer.

  Raises:
    UserError: there are more than `MAX_PARTS`.
  """
  count = -(-num_rows // rows)
  if count > MAX_PARTS:
    raise UserError(f'{folder}: {num_rows} rows do not fit into {MAX_PARTS} files of {rows}')
  return [folder / f'part-{i:05d}-of-{count:05d}.parquet' for i in range(count)]


def changes_of_plan(folder: pathlib.Path, plan: Mapping[str, Any]) -> list[str] | None:
  """Returns the names of what differs between a plan and that of a folder; None if the folder has none.

  Raises:
    UserError: the folder's plan is damaged.
  """
  path = folder / PLAN_FILE
  if not path.exists():
    return None
  try:
    saved = dict(read_json(path, MAX_DESCRIPTION_BYTES))
  except (OSError, ValueError, TypeError) as error:
    raise UserError(f'{path} is damaged ({error}); move the folder away') from error
  return [name for name, value in plan.items() if saved.get(name) != value]
