"""Files and folders that appear complete or not at all."""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import shutil
from typing import Any
import uuid


def _temporary_path(path: pathlib.Path) -> pathlib.Path:
  """Returns a hidden path beside `path` that nothing else uses, and creates the parent folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  return path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}.part')


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a temporary path to write to, and moves that file to `path` if the body succeeds.

  After an exception the temporary file is removed and `path` is unchanged. If several processes write the same file at
  once, the last one wins. Missing parent folders are created.
  """
  path = pathlib.Path(path)
  temporary = _temporary_path(path)
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Like `atomic_file`, for a folder: yields an empty temporary folder. `path` must not exist yet, or be empty."""
  path = pathlib.Path(path)
  temporary = _temporary_path(path)
  temporary.mkdir()
  try:
    yield temporary
    os.rename(temporary, path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | os.PathLike[str], values: Any) -> None:
  """Writes `values` as indented JSON, atomically."""
  with atomic_file(path) as temporary:
    temporary.write_text(json.dumps(values, indent=2) + '\n', encoding='utf-8')
