"""Work folders on object storage as local folders."""

from collections.abc import Callable, Collection, Iterator
import contextlib
import hashlib
import itertools
import logging
import os
import pathlib
import re
import signal
import threading
import time

from dgnet_jax.errors import MachineError
from dgnet_jax.storage.lease import leased
from dgnet_jax.storage.mirror import Mirror, everything, newest_checkpoints
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.locks import LOCK_FILE, InUse, exclusive
from dgnet_jax.utils.paths import is_address, local_path
from dgnet_jax.utils.user_cache import user_cache

logger = logging.getLogger(__name__)

SENT_EVERY = 10.0  # seconds
PATIENCE = 300.0  # seconds that the end of a job waits for storage that cannot be reached
PAUSE = 5.0  # seconds
HASH_DIGITS = 12

_held: dict[str, Mirror] = {}  # copies of this process, by address
_until_exit = contextlib.ExitStack()  # keeps them locked


def fetched(
  path: str | os.PathLike[str], wanted: Callable[[Collection[str]], Collection[str]] = newest_checkpoints
) -> pathlib.Path:
  """Returns a folder as a local one: as it is, or what is wanted of a folder on object storage, copied.

  Args:
    path: a local path, or an address like gs://bucket/runs/market.
    wanted: selects from the names of the folder's files.

  Raises:
    UserError: the path is none, or the storage cannot be read.
  """
  if not is_address(path):
    return local_path(path)
  mirror = _copy_of(os.fspath(path))
  mirror.fetch(wanted)
  return mirror.folder


def fetched_file(folder: str | os.PathLike[str], name: str) -> pathlib.Path:
  """Returns a file of a folder as a local one, which need not exist; of object storage this file alone is copied.

  Args:
    folder: as for `fetched`.
    name: of the file.

  Raises:
    UserError: the path is none, or the storage cannot be read.
  """
  if not is_address(folder):
    return local_path(folder) / name
  mirror = _copy_of(os.fspath(folder))
  path = mirror.folder.with_name(f'{mirror.folder.name}_files') / name
  path.unlink(missing_ok=True)
  with contextlib.suppress(FileNotFoundError), atomic_file(path) as temporary:
    mirror.remote.download(name, temporary)
  return path


@contextlib.contextmanager
def kept_in_step(address: str) -> Iterator[pathlib.Path]:
  """Locks a folder on object storage, yields a local copy, and sends its changes as long as the body runs.

  Changes are on the storage a few seconds after they were made, and all of them at the end. If the storage cannot be
  reached meanwhile, the job goes on, and they are sent later.

  Args:
    address: of the folder, which need not exist.

  Raises:
    InUse: another job works in the folder.
    MachineError: the last changes cannot be sent; names the local copy, from which the next job on this machine goes
      on. Or another job has taken the folder over, after this one had not reached the storage for a long time.
    UserError: the storage cannot be read.
  """
  mirror = _copy_of(address)
  with leased(mirror.remote, on_loss=_stop_this_job) as lease:
    mirror.fetch(everything)
    sender = _Sender(mirror, lambda: not lease.lost)
    try:
      yield mirror.folder
    except BaseException:
      with contextlib.suppress(MachineError):  # the first error is the one to show
        sender.finish()
      raise
    sender.finish()


def send_changes(address: str) -> None:
  """Sends what has changed in the copy that `kept_in_step` yields, without waiting for its next turn.

  Raises:
    StorageError: the storage cannot be reached.
  """
  _copy_of(address).send()


class _Sender:
  """Sends the changes of a copy in a thread of its own."""

  def __init__(self, mirror: Mirror, is_allowed: Callable[[], bool]) -> None:
    self._mirror = mirror
    self._is_allowed = is_allowed
    self._reachable = True
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True, name='sends to object storage')
    self._thread.start()

  def _run(self) -> None:
    while not self._ended.wait(SENT_EVERY):
      self._try()

  def _try(self) -> StorageError | None:
    """Sends once; logs the first failure of a row, and its end."""
    if not self._is_allowed():
      return None
    try:
      self._mirror.send()
    except StorageError as error:
      if self._reachable:
        logger.warning(f'{error}; the job goes on, and what it writes is sent once this works again')
      self._reachable = False
      return error
    if not self._reachable:
      logger.info(f'{self._mirror.remote.address}: everything is sent')
    self._reachable = True
    return None

  def finish(self) -> None:
    """Sends the rest; raises MachineError if that fails."""
    self._ended.set()
    self._thread.join()
    address, end = self._mirror.remote.address, time.monotonic() + PATIENCE
    while error := self._try():
      if time.monotonic() > end:
        raise MachineError(
          f'{error}. The last results are in {self._mirror.folder}; run the same command again on this machine to send '
          'them'
        ) from error
      time.sleep(PAUSE)
    if not self._is_allowed():
      raise MachineError(
        f'{address}: another job has taken the folder over, because this one had not reached it for too long; what '
        f'this one did since is in {self._mirror.folder}'
      )


def _stop_this_job() -> None:
  """Ends the job as a scheduler does."""
  logger.error('the lock of the work folder is lost to another job; this one stops')
  os.kill(os.getpid(), signal.SIGTERM)


def _copy_of(address: str) -> Mirror:
  """Returns the copy of a folder that this process has for itself until it exits."""
  if address not in _held:
    remote = RemoteFolder(address)
    name = re.sub(r'[^\w.-]', '_', remote.address.rpartition('/')[2])
    key = hashlib.sha256(remote.address.encode()).hexdigest()[:HASH_DIGITS]
    for number in itertools.count():
      place = user_cache() / 'object_storage' / f'{key}_{number}'
      place.mkdir(parents=True, exist_ok=True)
      try:
        _until_exit.enter_context(exclusive(place / LOCK_FILE, str(place), warn=False))
      except InUse:  # by another process
        continue
      _held[address] = Mirror(remote, place / name)
      break
  return _held[address]
