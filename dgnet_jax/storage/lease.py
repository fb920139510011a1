"""The lock of a folder on object storage: an object that its holder renews.

Storage has no locks that vanish with a process. So the holder rewrites the object every few seconds, and whoever finds
it unchanged for long enough takes it over. No clocks of different machines are compared.
"""

from collections.abc import Callable, Iterator
import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid

from dgnet_jax.errors import MachineError
from dgnet_jax.storage.remote_folder import RemoteFolder, StorageError
from dgnet_jax.utils.locks import InUse
from dgnet_jax.utils.text import printable, shortened

logger = logging.getLogger(__name__)

FILE = 'dgnet.lock'
RENEWED_AFTER = 10.0  # seconds
EXPIRES_AFTER = 60.0  # seconds: six renewals that failed
LOOK_AGAIN_AFTER = 2.0  # seconds
# Of several jobs that take over an expired lock at once, the last to write it has it: the others see that after this
# time, in seconds.
SETTLED_AFTER = 3.0
MAX_HOLDER = 200  # characters


class LockLost(MachineError):
  """Another job holds the lock that this one held."""


class Lease:
  """The lock of a folder, while it is held."""

  def __init__(self, folder: RemoteFolder, on_loss: Callable[[Exception], None]) -> None:
    """Args:
    folder: what it protects.
    on_loss: called, in another thread, once another job has the lock.
    """
    self._folder = folder
    self._on_loss = on_loss
    self._id = uuid.uuid4().hex
    self._count = 0
    self._ended = threading.Event()
    self.lost = False
    self._thread = threading.Thread(target=self._keep, daemon=True, name='lock on object storage')

  def acquire(self) -> None:
    """Waits until nobody else holds the lock, if its holder seems to be gone.

    Raises:
      InUse: another job holds and renews it; names it.
      StorageError: the storage cannot be reached.
    """
    while not self._try_to_create() and not self._try_to_take_over():
      pass
    self._thread.start()

  def require(self) -> None:
    """Raises LockLost unless the lock is still held, and StorageError if that cannot be seen."""
    if self.lost or not self._is_mine(self._read()):
      self.lost = True
      raise LockLost(
        f'{self._folder.address}: another job has taken the folder over, because this one had not reached it for too '
        'long; nothing more is sent'
      )

  def release(self) -> None:
    """Gives the lock back."""
    self._ended.set()
    if self._thread.is_alive():
      self._thread.join(RENEWED_AFTER)
    with contextlib.suppress(StorageError):  # it expires
      if not self.lost and self._is_mine(self._read()):
        self._folder.remove(FILE)

  def _try_to_create(self) -> bool:
    if self._read() is not None:  # some servers write what exists all the same
      return False
    try:
      self._folder.write(FILE, self._content(), only_new=True)
    except FileExistsError:
      return False
    return self._is_mine(self._read())

  def _try_to_take_over(self) -> bool:
    """Returns True if the lock had expired, and False if somebody gave it back or was faster."""
    seen, end = self._read(), time.monotonic() + EXPIRES_AFTER
    if seen is None:
      return False
    logger.info(
      f'{self._folder.address} is locked{_holder(seen)}: waiting up to {EXPIRES_AFTER:.0f} s to see whether that job '
      'still runs'
    )
    while time.monotonic() < end:
      time.sleep(LOOK_AGAIN_AFTER)
      now = self._read()
      if now is None:
        return False
      if now != seen:
        raise InUse(
          f'the work folder {self._folder.address} is in use by another job{_holder(now)}; wait until it ends, or use '
          'another folder'
        )
    logger.warning(f'{self._folder.address}: the job that had locked it{_holder(seen)} is gone; this one goes on')
    self._folder.write(FILE, self._content())
    time.sleep(SETTLED_AFTER)
    return self._is_mine(self._read())

  def _keep(self) -> None:
    """Renews the lock until it is given back or lost."""
    while not self._ended.wait(RENEWED_AFTER):
      try:
        self.require()
        self._folder.write(FILE, self._content())
      except LockLost as error:
        self._on_loss(error)
        return
      except Exception as error:  # the next renewal may reach the storage again
        logger.debug(f'{self._folder.address}: the lock was not renewed ({error})')

  def _read(self) -> bytes | None:
    try:
      return self._folder.read(FILE)
    except FileNotFoundError:
      return None

  def _content(self) -> bytes:
    self._count += 1
    holder = f'process {os.getpid()} on {socket.gethostname()}'
    return json.dumps({'id': self._id, 'holder': holder, 'renewals': self._count}).encode()

  def _is_mine(self, content: bytes | None) -> bool:
    return content is not None and self._id.encode() in content


def _holder(content: bytes) -> str:
  """Returns who holds a lock, in parentheses, as far as its object says it."""
  try:
    holder = json.loads(content)['holder']
  except (ValueError, TypeError, KeyError, RecursionError):
    return ''
  return f' ({printable(shortened(str(holder), MAX_HOLDER))})'


@contextlib.contextmanager
def leased(folder: RemoteFolder, on_loss: Callable[[Exception], None]) -> Iterator[Lease]:
  """Holds the lock of a folder; arguments and errors are those of `Lease`."""
  lease = Lease(folder, on_loss)
  lease.acquire()
  try:
    yield lease
  finally:
    lease.release()
