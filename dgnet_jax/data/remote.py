"""Data sets on object storage (gs://, s3://): copied to this machine once, then read like any other."""

from concurrent.futures import ThreadPoolExecutor
import logging
import pathlib

from dgnet_jax.errors import UserError
from dgnet_jax.storage.remote_folder import RemoteFolder
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.paths import is_address
from dgnet_jax.utils.progress import ProgressLog

logger = logging.getLogger(__name__)

THREADS = 32
MIB = 2**20


def is_remote(root: str) -> bool:
  """Returns True if `root` is on object storage."""
  return is_address(root)


def local_copy(root: str, cache: pathlib.Path) -> pathlib.Path:
  """Copies the files of a remote folder, except those that already exist at their full size.

  Args:
    root: folder of a data set, like gs://bucket/Market-1501-v15.09.15.
    cache: folder of all such copies.

  Returns:
    The folder of the copy, in `cache`.

  Raises:
    UserError: the folder is empty, or the library for that storage is not installed.
    StorageError: the storage cannot be read.
  """
  remote = RemoteFolder(root)
  scheme, _, rest = remote.address.partition('://')
  files = remote.list_files()
  if not files:
    raise UserError(f'{root}: no files in it')
  folder = cache.joinpath(scheme, *filter(None, rest.split('/')))
  missing = [name for name, file in files.items() if not _is_complete(folder / name, file.size)]
  total = sum(files[name].size for name in missing)
  if missing:
    logger.info(f'copying {len(missing)} files, {total / MIB:.0f} MiB, from {root} to {folder}')
  progress, copied = ProgressLog(logger, 'copying', total // MIB, 'MiB'), 0

  def copy(name: str) -> int:
    with atomic_file(folder / name) as temporary:
      remote.download(name, temporary)
    return files[name].size

  with ThreadPoolExecutor(THREADS) as pool:
    for size in pool.map(copy, missing):
      copied += size
      progress.update(copied // MIB)
  return folder


def _is_complete(path: pathlib.Path, size: int) -> bool:
  return path.is_file() and path.stat().st_size == size
