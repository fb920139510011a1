"""Prepared data sets on object storage (gs://, s3://): copied to this machine once, then read like any other."""

import logging
import pathlib
from typing import Any

from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import whole_file
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)


CHUNK_BYTES = 16 * 2**20


def is_remote(root: str) -> bool:
  """Whether `root` names a place on object storage."""
  return '://' in root


def local_copy(root: str, cache: pathlib.Path) -> pathlib.Path:
  """Copies the files of a folder, but for those that are here already at their full size.

  Args:
    root: of a prepared data set, like gs://bucket/tfds/market1501/1.0.0.
    cache: folder of such copies.

  Returns:
    The folder of the copy, in `cache`.

  Raises:
    UserError: the folder is empty or cannot be read, or the library for that storage is not installed.
  """
  from etils import epath  # late: it looks for all kinds of storage

  scheme, _, rest = root.partition('://')
  folder = cache / scheme / rest.strip('/')
  try:
    files = sorted((path for path in epath.Path(root).iterdir() if path.is_file()), key=lambda path: path.name)
    sizes = {path.name: path.stat().length for path in files}
    missing = [path for path in files if not _is_here(folder / path.name, sizes[path.name])]
    total = sum(sizes[path.name] for path in missing)
    if missing:
      logger.info(f'copying {len(missing)} files, {total / 2**20:.0f} MiB, from {root} to {folder}')
    progress, done = Progress(total // 2**20 or 1, unit='MiB'), 0
    for path in missing:
      done += _copy(path, folder / path.name)
      logger.info(f'copied {progress.line(done // 2**20)}')
  except (OSError, ImportError, ValueError, RuntimeError) as error:
    raise UserError(f'{root}: cannot be read: {error}') from error
  if not files:
    raise UserError(f'{root}: no files there')
  return folder


def _is_here(path: pathlib.Path, size: int) -> bool:
  return path.is_file() and path.stat().st_size == size


def _copy(source: Any, target: pathlib.Path) -> int:
  """Copies a file whole or not at all; its size."""
  size = 0
  with whole_file(target) as aside, source.open('rb') as theirs, aside.open('wb') as ours:
    while chunk := theirs.read(CHUNK_BYTES):
      size += ours.write(chunk)
  return size
