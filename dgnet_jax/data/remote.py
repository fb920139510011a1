"""Prepared data sets on object storage (gs://, s3://): copied to this machine once, then read like any other."""

import logging
import pathlib
from typing import Any

from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.paths import is_address
from dgnet_jax.utils.progress import Progress
from dgnet_jax.utils.text import shortened

logger = logging.getLogger(__name__)


MAX_REASON = 500  # characters
CHUNK_BYTES = 16 * 2**20


def is_remote(root: str) -> bool:
  """Returns True if `root` is on object storage."""
  return is_address(root)


def local_copy(root: str, cache: pathlib.Path) -> pathlib.Path:
  """Copies the files of a remote folder, except those that already exist at their full size.

  Args:
    root: folder of a prepared data set, like gs://bucket/tfds/market1501/1.0.0.
    cache: folder of all such copies.

  Returns:
    The folder of the copy, in `cache`.

  Raises:
    UserError: the folder is empty or cannot be read, or the library for that storage is not installed.
  """
  from etils import epath  # late: it probes for every kind of storage

  scheme, _, rest = root.partition('://')
  folder = cache / scheme / rest.strip('/')
  try:
    files = sorted((path for path in epath.Path(root).iterdir() if path.is_file()), key=lambda path: path.name)
    sizes = {path.name: path.stat().length for path in files}
    missing = [path for path in files if not _is_complete(folder / path.name, sizes[path.name])]
    total = sum(sizes[path.name] for path in missing)
    if missing:
      logger.info(f'copying {len(missing)} files, {total / 2**20:.0f} MiB, from {root} to {folder}')
    progress, copied = Progress(total // 2**20 or 1, unit='MiB'), 0
    for path in missing:
      copied += _copy(path, folder / path.name)
      logger.info(f'copied {progress.line(copied // 2**20)}')
  except Exception as error:  # the library of each kind of storage raises kinds of its own
    raise UserError(f'{root}: cannot be read: {shortened(str(error) or type(error).__name__, MAX_REASON)}') from error
  if not files:
    raise UserError(f'{root}: no files in it')
  return folder


def _is_complete(path: pathlib.Path, size: int) -> bool:
  return path.is_file() and path.stat().st_size == size


def _copy(source: Any, target: pathlib.Path) -> int:
  """Copies a file (`epath.Path`) atomically and returns its size in bytes."""
  size = 0
  with atomic_file(target) as partial, source.open('rb') as remote_file, partial.open('wb') as local_file:
    while chunk := remote_file.read(CHUNK_BYTES):
      size += local_file.write(chunk)
  return size
