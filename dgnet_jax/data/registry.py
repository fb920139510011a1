"""From a folder to a DatasetIndex: the readers by layout, and which layout a folder has."""

from collections.abc import Callable
import pathlib
from typing import Any, NamedTuple

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.index import DatasetIndex, make_index
from dgnet_jax.data.layouts import LAYOUTS, Layout
from dgnet_jax.data.readers import flat, identity_folders, msmt17, prepared, table
from dgnet_jax.data.readers.listing import Found, list_folders
from dgnet_jax.errors import UserError


class Reader(NamedTuple):
  """How a kind of layout is read, and how it is told from others."""

  read: Callable[[Layout, pathlib.Path, Any], Found]
  recognise: Callable[[Layout, pathlib.Path], bool]


READERS = {
  'flat': Reader(flat.read, flat.recognise),
  'msmt17': Reader(msmt17.read, msmt17.recognise),
  'identity_folders': Reader(identity_folders.read, identity_folders.recognise),
  'table': Reader(table.read, table.recognise),
  'prepared': Reader(prepared.read, prepared.recognise),
}
NEARBY = 50  # folders looked at for a data set one level off


def recognise(root: str | pathlib.Path) -> Layout | None:
  """The first layout of the registry that `root` has; None when it has none or cannot be read."""
  root = pathlib.Path(root)
  try:
    return next((row for row in LAYOUTS.values() if READERS[row.reader].recognise(row, root)), None)
  except (OSError, UserError):
    return None


def _way_out(root: pathlib.Path, wanted: Layout | None) -> str:
  """Where the data set may be instead, or what it is instead; '' when nothing is known."""
  if wanted is LAYOUTS['synthetic']:
    return ''  # the program's own work, in Market-1501's names
  here = recognise(root)
  if here is not None:
    return '' if here is wanted else f' This looks like {here.title}: data.layout={here.name}'
  try:
    inner = [root / name for name in list_folders(root)[0][:NEARBY]]
  except UserError:
    inner = []
  for path in (root.parent, *inner):
    near = recognise(path)
    if near is not None and near is (wanted or near):
      return f' Did you mean data.root={path}?'
  return ''


def read_dataset(data_config: DataConfig, root: str | pathlib.Path = '') -> DatasetIndex:
  """Reads the data set of `config.data`; opens no image.

  Args:
    data_config: layout, root, boxes, train_with_val and camera_pattern are read.
    root: the folder (layout csv: the file), where it is not `data_config.root`.

  Returns:
    The index; splits that are not there are empty.

  Raises:
    UserError: the data set is missing, incomplete or misnamed; names the folder or file, and the way out where one is
      known.
  """
  root, layout = pathlib.Path(root or data_config.root), LAYOUTS[data_config.layout]
  if not root.exists():
    raise UserError(f'{root}: no such folder or file (data.root)')
  try:
    found = READERS[layout.reader].read(layout, root, data_config)
    return make_index(layout.name, str(found.root), found.images, variant=found.variant)
  except UserError as error:
    raise UserError(f'{error}{"" if str(error).endswith(".") else "."}{_way_out(root, layout)}') from error


def read_layout(root: str | pathlib.Path, layout: str = '', **fields: Any) -> DatasetIndex:
  """Reads a data set outside of a run.

  Args:
    root: the folder or file.
    layout: a name of the registry; '' recognises it.
    fields: other fields of `config.data`.

  Raises:
    UserError: as `read_dataset`, or the layout is not recognised.
  """
  if not layout:
    row = recognise(root)
    if row is None:
      root = pathlib.Path(root)
      if not root.exists():
        raise UserError(f'{root}: no such folder or file')
      known = ''.join(f'\n  {name}: {row.title}, files like {row.example}' for name, row in LAYOUTS.items())
      raise UserError(f'{root}: no known layout.{_way_out(root, None) or f" Known are:{known}"}')
    layout = row.name
  return read_dataset(DataConfig(layout=layout, root=str(root), **fields))
