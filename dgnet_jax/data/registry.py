"""From a folder to a DatasetIndex: the reader of each layout, and detection of a folder's layout."""

from collections.abc import Callable
import os
import pathlib
from typing import Any, NamedTuple

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.index import DatasetIndex, make_index, printable
from dgnet_jax.data.layouts import LAYOUTS, Layout
from dgnet_jax.data.readers import flat, identity_folders, mars, msmt17, prepared, table
from dgnet_jax.data.readers.listing import ReadImages, list_folders
from dgnet_jax.errors import UserError
from dgnet_jax.utils.paths import local_path


class Reader(NamedTuple):
  """The functions for one kind of layout: `read` returns its images, `matches` detects it."""

  read: Callable[[Layout, pathlib.Path, DataConfig], ReadImages]
  matches: Callable[[Layout, pathlib.Path], bool]


READERS = {
  'flat': Reader(flat.read, flat.matches),
  'mars': Reader(mars.read, mars.matches),
  'msmt17': Reader(msmt17.read, msmt17.matches),
  'identity_folders': Reader(identity_folders.read, identity_folders.matches),
  'table': Reader(table.read, table.matches),
  'prepared': Reader(prepared.read, prepared.matches),
}
MAX_SUBFOLDERS = 50  # inspected for a data set one level below


def detect_layout(root: str | pathlib.Path) -> Layout | None:
  """Returns the first layout of the registry that matches `root`; None if no layout matches or it is unreadable."""
  root = pathlib.Path(root)
  try:
    return next((layout for layout in LAYOUTS.values() if READERS[layout.reader].matches(layout, root)), None)
  except (OSError, UserError):
    return None


def _hint(root: pathlib.Path, wanted: Layout | None, *, fields: bool) -> str:
  """Suggests another layout of `root`, or a folder one level off; '' if nothing was found.

  Args:
    root: the folder or file.
    wanted: the layout that was asked for, if any.
    fields: name the fields of the config; programs that read a data set without a config have other flags.
  """
  if wanted is LAYOUTS['synthetic']:
    return ''  # rendered by this program, with Market-1501's names
  detected = detect_layout(root)
  if detected is wanted is not None:
    return ''
  if detected is not None:
    return f' This looks like {detected.title}: {"data.layout=" if fields else "layout "}{detected.name}'
  try:
    subfolders = [root / name for name in list_folders(root)[0][:MAX_SUBFOLDERS]]
  except UserError:
    subfolders = []
  for path in (root.parent, *subfolders):
    nearby = detect_layout(path)
    if nearby is not None and nearby is (wanted or nearby):
      return f' Did you mean {"data.root=" if fields else ""}{path}?'
  return ''


def _in_current_folder(path: pathlib.Path) -> str:
  """Returns where a relative path was looked for: a run may be resumed in another folder."""
  return '' if path.is_absolute() else f'; the current folder is {printable(os.getcwd())}'


def read_dataset(data_config: DataConfig, root: str | pathlib.Path = '', *, fields: bool = True) -> DatasetIndex:
  """Reads the configured data set, without opening any image.

  Args:
    data_config: layout, root, boxes, train_with_val, camera_pattern and identity_pattern are read.
    root: the folder (layout csv: the file) if it is not `data_config.root`.
    fields: name fields of the config in messages.

  Returns:
    The index; splits that do not exist are empty.

  Raises:
    UserError: the data set is missing, incomplete or misnamed. The message names the folder or file, and the fix if one
      is known.
  """
  root, layout = local_path(root or data_config.root), LAYOUTS[data_config.layout]
  if not root.exists():
    field = ' (data.root)' if fields else ''
    raise UserError(f'{printable(str(root))}: no such folder or file{field}{_in_current_folder(root)}')
  try:
    result = READERS[layout.reader].read(layout, root, data_config)
    return make_index(layout.name, str(result.root), result.images, variant=result.variant)
  except UserError as error:
    raise UserError(f'{error}{"" if str(error).endswith(".") else "."}{_hint(root, layout, fields=fields)}') from error


def read_layout(root: str | pathlib.Path, layout: str = '', **fields: Any) -> DatasetIndex:
  """Reads a data set outside of a run.

  Args:
    root: the folder or file.
    layout: name of a layout in the registry; '' detects it.
    **fields: other fields of `config.data`.

  Raises:
    UserError: as `read_dataset`, or no layout matches.
  """
  root = local_path(root)
  if not layout:
    detected = detect_layout(root)
    if detected is None:
      if not root.exists():
        raise UserError(f'{printable(str(root))}: no such folder or file{_in_current_folder(root)}')
      known = ''.join(f'\n  {name}: {row.title}, files like {row.example}' for name, row in LAYOUTS.items())
      known += '\nFor files named in another way: layout folders with data.identity_pattern, or a table (layout csv)'
      raise UserError(f'{root}: unknown layout.{_hint(root, None, fields=False) or f" Known layouts:{known}"}')
    layout = detected.name
  return read_dataset(DataConfig(layout=layout, root=str(root), **fields), fields=False)
