"""Work folders on object storage as local folders."""

from collections.abc import Iterator
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

from dgnet_jax.errors import Interrupted, MachineError, UserError
from dgnet_jax.storage.lease import Lease, LockLost, leased
from dgnet_jax.storage.mirror import CopyLost, Mirror
from dgnet_jax.storage.remote_folder import RemoteFolder
from dgnet_jax.storage.run_files import Selection, newest_checkpoints
from dgnet_jax.utils.addresses import name_by_address
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.locks import LOCK_FILE, InUse, exclusive
from dgnet_jax.utils.paths import is_address, local_path
from dgnet_jax.utils.user_cache import user_cache

logger = logging.getLogger(__name__)

SENT_EVERY = 10.0  # seconds
PATIENCE = 300.0  # seconds that the end of a job waits for storage that cannot be reached
PAUSE = 5.0  # seconds
HASH_DIGITS = 12
READING, WORKING = 'read', 'work'  # uses of a copy
SINGLE_FILES = '.single_files'  # in a copy for reading: what was fetched by name

_held: dict[tuple[str, str], Mirror] = {}  # copies of this process, by address and use
_until_exit = contextlib.ExitStack()  # keeps them locked


def fetched(path: str | os.PathLike[str], wanted: Selection = newest_checkpoints) -> pathlib.Path:
  """Returns a folder as a local one: as it is, or what is wanted of a folder on object storage, copied.

  Args:
    path: a local path, or an address like gs://bucket/runs/market.
    wanted: selects from the names of the folder's files.

  Raises:
    UserError: the path is none, or the storage cannot be read.
  """
  if not is_address(path):
    return local_path(path)
  mirror = _copy_of(os.fspath(path), READING)
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
  mirror = _copy_of(os.fspath(folder), READING)
  path = mirror.folder / SINGLE_FILES / name
  path.unlink(missing_ok=True)
  with contextlib.suppress(FileNotFoundError), atomic_file(path) as temporary:
    mirror.remote.download(name, temporary)
  return path


class WorkingCopy:
  """The local copy of a folder that a job works in, and the thread that sends its changes."""

  def __init__(self, mirror: Mirror, lease: Lease) -> None:
    self.folder = mirror.folder
    self._mirror = mirror
    self._lease = lease
    self._reachable = True
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True, name='sends to object storage')
    self._thread.start()

  def send(self) -> None:
    """Sends all changes; tries again for `PATIENCE` if the storage cannot be reached.

    Raises:
      MachineError: they cannot be sent; names the local copy. Or another job has the lock.
    """
    end = time.monotonic() + PATIENCE
    while error := self._try():
      if isinstance(error, LockLost | CopyLost):
        raise error
      if time.monotonic() > end:
        raise MachineError(
          f'{error}. The last results are on this machine, in {self.folder.parent}; run the same command here again to '
          'send them'
        ) from error
      time.sleep(PAUSE)

  def finish(self) -> None:
    """Ends the thread and sends the rest; raises MachineError as `send`."""
    self._ended.set()
    self._thread.join()
    self.send()

  def _run(self) -> None:
    while not self._ended.wait(SENT_EVERY):
      self._try()

  def _try(self) -> Exception | None:
    """Sends once; logs the first failure of a row, and its end."""
    try:
      self._mirror.send(self._lease.require)
    except Interrupted:
      raise
    except (LockLost, CopyLost) as error:  # for good
      if not self._ended.is_set():
        self._ended.set()
        _stop_this_job(error)
      return error
    except Exception as error:  # whatever it is: training is worth more, and the next time may succeed
      if self._reachable:
        logger.warning(f'{error}; the job goes on, and what it writes is sent once this works again')
      self._reachable = False
      return error
    if not self._reachable:
      logger.info(f'{self._mirror.remote.address}: everything is sent')
    self._reachable = True
    return None


@contextlib.contextmanager
def kept_in_step(address: str) -> Iterator[WorkingCopy]:
  """Locks a folder on object storage, yields a local copy, and sends its changes as long as the body runs.

  Changes are on the storage a few seconds after they were made, and all of them at the end. If the storage cannot be
  reached meanwhile, the job goes on, and they are sent later.

  Args:
    address: of the folder, which need not exist.

  Raises:
    InUse: another job works in the folder.
    MachineError: the last changes cannot be sent, or another job has the lock, as for `WorkingCopy.send`.
    UserError: the storage cannot be read.
  """
  mirror = _copy_of(address, WORKING)
  with leased(mirror.remote, on_loss=_stop_this_job) as lease:
    mirror.take_over()
    copy = WorkingCopy(mirror, lease)
    try:
      yield copy
    except Interrupted:
      _finish(copy)  # its message says that the state is saved
      raise
    except BaseException:
      try:
        _finish(copy)
      except MachineError as error:  # the first error is the one to end with
        logger.error(str(error))
      raise
    _finish(copy)


def _finish(copy: WorkingCopy) -> None:
  """Sends the rest, also after a signal that comes meanwhile: this is what its sender has to wait for."""
  try:
    copy.finish()
  except Interrupted:
    copy.finish()
    raise


def _cache() -> pathlib.Path:
  try:
    return user_cache()
  except RuntimeError as error:
    raise UserError(f'local copies of object storage need a folder: set XDG_CACHE_HOME ({error})') from error


def _stop_this_job(reason: Exception) -> None:
  """Ends the job as a scheduler does."""
  logger.error(f'{reason}. This job stops')
  os.kill(os.getpid(), signal.SIGTERM)


def _copy_of(address: str, use: str) -> Mirror:
  """Returns the copy of a folder that this process has for itself until it exits.

  What a killed job did not send is in a copy for `WORKING`, which processes that read do not touch.
  """
  if (address, use) not in _held:
    remote = RemoteFolder(address)
    name = re.sub(r'[^\w.-]', '_', remote.address.rpartition('/')[2])
    key = hashlib.sha256(remote.address.encode()).hexdigest()[:HASH_DIGITS]
    for number in itertools.count():
      place = _cache() / 'object_storage' / f'{key}_{use}_{number}'
      place.mkdir(parents=True, exist_ok=True)
      try:
        _until_exit.enter_context(exclusive(place / LOCK_FILE, str(place), warn=False))
      except InUse:  # by another process
        continue
      name_by_address(str(place / name), remote.address)
      _held[address, use] = Mirror(remote, place / name)
      break
  return _held[address, use]
