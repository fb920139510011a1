"""Paths as people type them, and whether they can be written to."""

import contextlib
import os
import pathlib
import re
import tempfile
import urllib.parse

from dgnet_jax.errors import UserError
from dgnet_jax.utils.text import printable

_FILE = 'file://'
_ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')
_WINDOWS = re.compile(r'[A-Za-z]:[\\/]|.*\\')  # a drive, or a backslash anywhere


def is_address(path: str | os.PathLike[str]) -> bool:
  """Returns True for an address like gs://bucket/folder."""
  text = os.fspath(path)
  return bool(_ADDRESS.match(text)) and not text.startswith(_FILE)


def local_text(path: str | os.PathLike[str]) -> str:
  """Like `local_path`, but returns the path as it was typed wherever it can be used like that: ./a.jpg stays."""
  text = os.fspath(path)
  shown = printable(text)
  if not text:
    raise UserError('an empty path; name a file or folder (. is the current folder)')
  if '\0' in text:
    raise UserError(f'{shown}: a path cannot contain the character 0')
  if is_address(text):
    raise UserError(f'{shown}: must be on this machine; copy it, or mount the storage')
  if text.startswith(_FILE):
    text = urllib.parse.unquote(text.removeprefix(_FILE).removeprefix('localhost'), errors='surrogateescape')
    if not text.startswith('/'):
      raise UserError(f'{shown}: write {_FILE}/FOLDER/FILE, or a plain path')
  if os.sep == '/' and _WINDOWS.match(text) and not os.path.lexists(text):
    raise UserError(f'{shown}: a path of Windows, and there is no file of this name; write / between folders')
  return os.path.expanduser(text)


def local_path(path: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the path of a file or folder of this machine.

  Args:
    path: relative or absolute, with or without a trailing slash. A `~` at its start is the home folder; shells do not
      replace it in --flag=~/folder. file:///folder/file is /folder/file.

  Raises:
    UserError: it is empty, contains the character 0, is the address of something on another machine, or is a path of
      Windows on another system, where it would be one long name.
  """
  return pathlib.Path(local_text(path))


def check_writable(path: str | os.PathLike[str]) -> pathlib.Path:
  """Checks, by trying, that a file or folder can be written, before the work that it is for. Creates nothing.

  Args:
    path: a new or an existing file or folder.

  Returns:
    `path` as a Path.

  Raises:
    UserError: it cannot be created, or cannot be written to.
  """
  path = local_path(path)
  try:
    folder, missing = path if path.is_dir() else path.parent, [path.name]
    while not os.path.lexists(folder):
      folder, missing = folder.parent, [folder.name, *missing]
    for name in missing:
      with contextlib.suppress(FileNotFoundError):
        os.lstat(folder / name)  # the name may be too long
    with tempfile.TemporaryFile(dir=folder):
      pass
  except (OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise UserError(f'{printable(str(path))}: cannot be written to ({reason})') from error
  return path


def packaged_models() -> dict[str, pathlib.Path]:
  """Returns the files of the trained models that come with the package, by name."""
  return {path.stem: path for path in sorted((pathlib.Path(__file__).parents[1] / 'trained').glob('*.safetensors'))}
