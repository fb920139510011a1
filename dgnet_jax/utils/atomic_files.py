"""Files and folders that appear complete or not at all."""

from collections.abc import Iterator
import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
from typing import Any
import uuid

from dgnet_jax.utils.locks import has_locks, is_at, try_lock

_TEMPORARY = re.compile(r'\.(.+\.)?[0-9a-f]{8}\.part')  # earlier versions put the final name into it
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_cleaned: set[str] = set()  # folders that this process has cleaned


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields an empty temporary file to write to, and moves it to `path` if the body succeeds.

  After an exception the temporary file is removed and `path` is unchanged. If several processes write the same file at
  once, the last one wins. Missing parent folders are created. What killed processes left in the folder is removed when
  this process first writes there.

  Raises:
    OSError: the file cannot be written, for example because the disk is full; `filename` is `path`.
  """
  path = pathlib.Path(path)
  with naming(path), _temporary(path, is_folder=False) as temporary:
    try:
      yield temporary
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Like `atomic_file`, for a folder: yields an empty temporary folder. `path` must not exist yet, or be empty."""
  path = pathlib.Path(path)
  with naming(path), _temporary(path, is_folder=True) as temporary:
    try:
      yield temporary
      os.rename(temporary, path)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | os.PathLike[str], values: Any) -> None:
  """Writes `values` as indented JSON, atomically."""
  with atomic_file(path) as temporary:
    temporary.write_text(json.dumps(values, indent=2) + '\n', encoding='utf-8')


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
  """Puts the name of a file or folder into errors of writing it, which lack it or have that of a temporary file."""
  try:
    yield
  except OSError as error:
    name = os.path.basename(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else ''
    if _TEMPORARY.fullmatch(name) or (not error.filename and error.errno in _CANNOT_WRITE):
      raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    raise


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
  """Removes the temporary files and folders that killed processes left in a folder; those in use stay."""
  with contextlib.suppress(OSError):
    for path in pathlib.Path(folder).iterdir():
      if _TEMPORARY.fullmatch(path.name):
        with contextlib.suppress(OSError):
          _remove_if_unused(path)


def _remove_if_unused(path: pathlib.Path) -> None:
  is_folder = path.is_dir()
  descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
  try:
    if not try_lock(descriptor):
      return  # somebody writes it, or there are no locks, so that nobody knows
    if is_folder:
      shutil.rmtree(path, ignore_errors=True)
    else:
      path.unlink()
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def _temporary(path: pathlib.Path, *, is_folder: bool) -> Iterator[pathlib.Path]:
  """Creates a hidden file or folder beside `path`, and locks it while it is in use."""
  path.parent.mkdir(parents=True, exist_ok=True)
  parent = os.path.realpath(path.parent)
  if parent not in _cleaned:
    _cleaned.add(parent)
    remove_leftovers(parent)
  while True:
    temporary = path.with_name(f'.{uuid.uuid4().hex[:8]}.part')
    temporary.mkdir() if is_folder else temporary.touch(exist_ok=False)
    if not has_locks():  # an open file could not be renamed on Windows
      yield temporary
      return
    try:
      descriptor = os.open(temporary, os.O_RDONLY if is_folder else os.O_RDWR)
    except FileNotFoundError:  # another process took it for a leftover
      continue
    try:
      locked = try_lock(descriptor)
      if locked is None or (locked and is_at(descriptor, temporary)):
        yield temporary
        return
    finally:
      os.close(descriptor)
