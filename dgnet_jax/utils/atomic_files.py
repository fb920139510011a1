"""Files that appear whole or not at all."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil
import uuid


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a path beside `path` to write to; the file takes its name at the end, or is removed after an exception.

  Several processes may write the same file at a time: the last one stays. Missing folders are made.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  aside = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}.part')
  try:
    yield aside
    os.replace(aside, path)
  finally:
    aside.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Like `whole_file`, for a folder that is not there yet."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  aside = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}.part')
  aside.mkdir()
  try:
    yield aside
    os.rename(aside, path)
  finally:
    shutil.rmtree(aside, ignore_errors=True)
