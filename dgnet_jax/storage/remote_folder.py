"""A folder on object storage: its files, read and written whole."""

from collections.abc import Iterator
import contextlib
import errno
import logging
import pathlib
from typing import Any, NamedTuple

from dgnet_jax.errors import Interrupted, MachineError, UserError
from dgnet_jax.utils.extras import install_command
from dgnet_jax.utils.text import printable, shortened

logger = logging.getLogger(__name__)

EXTRAS = {'gs': 'gcs', 's3': 's3'}  # by scheme
MAX_REASON = 500  # characters
LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # of the local file, not of the network
# What identifies the content of an object, in the listings of the kinds of storage.
VERSIONS = ('generation', 'ETag', 'etag', 'updated', 'LastModified', 'created')


class StorageError(MachineError):
  """Object storage cannot be reached, or refuses what is asked of it."""


class RemoteFile(NamedTuple):
  """What a listing says about a file.

  Attributes:
    size: bytes.
    version: changes whenever the content does.
  """

  size: int
  version: str


class RemoteFolder:
  """A folder like gs://bucket/runs/market. Nothing is cached: two objects see each other's changes at once."""

  def __init__(self, address: str) -> None:
    """Opens a folder, which need not exist.

    Args:
      address: gs://BUCKET/FOLDER or s3://BUCKET/FOLDER. The library of each kind of storage finds its credentials and
        settings as its documentation says (gcsfs and s3fs).

    Raises:
      UserError: it is the address of something else, or the library for this kind of storage is not installed.
    """
    scheme, _, path = address.partition('://')
    self.address = f'{scheme}://{path.strip("/")}'
    self._files, self._root = _open(self.address)

  def list_files(self) -> dict[str, RemoteFile]:
    """Returns all files in the folder and its subfolders by their name, like images/a.png; none if there is no folder.

    Raises:
      UserError: there is no such bucket.
      StorageError: they cannot be listed, or a name could lead out of the folder.
    """
    with self._named('', missing=self._no_bucket()):
      found = self._files.find(self._root, detail=True)
    prefix = f'{self._root}/'
    names = {path.removeprefix(prefix): info for path, info in found.items() if path.startswith(prefix)}
    return {
      self._checked(name): RemoteFile(int(info['size']), _version(info))
      for name, info in names.items()
      if name and not name.endswith('/')  # the object that a console makes for a folder
    }

  def read(self, name: str) -> bytes:
    """Returns the content of a file; raises FileNotFoundError if it does not exist, StorageError otherwise."""
    with self._named(name):
      return bytes(self._files.cat_file(self._path(name)))

  def write(self, name: str, content: bytes, *, only_new: bool = False) -> None:
    """Writes a file: it appears complete or not at all.

    Args:
      name: of the file.
      content: what it will contain.
      only_new: raise FileExistsError if it exists already; of several writers, one succeeds.

    Raises:
      UserError: there is no such bucket.
      StorageError: it cannot be written.
    """
    with self._named(name, missing=self._no_bucket()):
      self._files.pipe_file(self._path(name), content, mode='create' if only_new else 'overwrite')

  def upload(self, path: pathlib.Path, name: str) -> None:
    """Copies a local file to `name`; raises FileNotFoundError if it does not exist, StorageError otherwise."""
    try:
      with self._named(name):
        self._files.put_file(str(path), self._path(name))
    except FileNotFoundError as error:
      if path.exists():
        raise self._no_bucket() from error
      raise

  def download(self, name: str, path: pathlib.Path) -> None:
    """Copies a file to a local path; raises FileNotFoundError if it does not exist, StorageError otherwise."""
    with self._named(name):
      self._files.get_file(self._path(name), str(path))

  def remove(self, name: str) -> None:
    """Removes a file if it exists; raises StorageError if it cannot be."""
    with contextlib.suppress(FileNotFoundError), self._named(name):
      self._files.rm_file(self._path(name))

  def _path(self, name: str) -> str:
    return f'{self._root}/{self._checked(name)}'

  def _checked(self, name: str) -> str:
    if any(part in ('', '.', '..') or not part.isprintable() for part in name.split('/')) or '\\' in name:
      raise StorageError(f'{self.address}: {printable(shortened(name))!r} cannot be the name of a file; remove it')
    return name

  def _no_bucket(self) -> UserError:
    return UserError(f'{self.address}: there is no such bucket; create it first')

  @contextlib.contextmanager
  def _named(self, name: str, missing: UserError | None = None) -> Iterator[None]:
    """Puts the address into errors. Each library has kinds of its own, and many of them.

    Args:
      name: of the file; '' for the folder.
      missing: what is raised instead of FileNotFoundError, where that does not mean the file.
    """
    try:
      yield
    except FileNotFoundError:
      if missing is not None:
        raise missing from None
      raise
    except (FileExistsError, StorageError, Interrupted):
      raise
    except OSError as error:
      if error.errno in LOCAL_ERRORS:
        raise
      raise self._refused(name, error) from error
    except Exception as error:
      raise self._refused(name, error) from error

  def _refused(self, name: str, error: Exception) -> StorageError:
    where = f'{self.address}/{name}' if name else self.address
    return StorageError(f'{where}: object storage refuses it or cannot be reached ({_reason(error)})')


def _open(address: str) -> tuple[Any, str]:
  """Returns the file system of an address, and the folder's path in it."""
  scheme, _, path = address.partition('://')
  if scheme not in EXTRAS:
    raise UserError(f'{printable(address)}: only gs:// and s3:// are supported; copy it, or mount the storage')
  if not path:
    raise UserError(f'{address}: name a bucket, and a folder in it, like {scheme}://bucket/runs/market')
  try:
    import fsspec  # late: few need it

    # No cached listings: other jobs write to the folder.
    files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
  except ImportError as error:
    raise UserError(f'{address}: {scheme}:// needs another package: {install_command(EXTRAS[scheme])}') from error
  except Exception as error:  # without credentials
    raise UserError(f'{address}: cannot be opened ({_reason(error)})') from error
  return files, root.rstrip('/')


def _reason(error: Exception) -> str:
  return shortened(' '.join(str(error).split()) or type(error).__name__, MAX_REASON)


def _version(info: dict[str, Any]) -> str:
  return next((str(info[key]) for key in VERSIONS if info.get(key)), '')
