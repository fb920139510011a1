"""Locks between processes. The kernel holds them, so that they vanish with a process however it ends."""

from collections.abc import Iterator
import contextlib
import errno
import logging
import os
import pathlib
import socket
import threading

from dgnet_jax.errors import UserError

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK_FILE = '.lock'  # in a folder that a process keeps for itself
_BUSY = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.EBADF)
_MAX_HOLDER = 200  # bytes of a lock file that are read

# Lock files that threads of this process hold: their owner, and whether the system holds them too.
_held: dict[str, tuple[int, bool]] = {}
_held_guard = threading.Lock()


class InUse(UserError):
  """Another process or thread holds the lock."""


def has_locks() -> bool:
  """Returns True if the platform has locks; a file system may still have none."""
  return fcntl is not None


def try_lock(descriptor: int, *, wait: bool = False) -> bool | None:
  """Locks an open file until it is closed.

  Args:
    descriptor: of a file that is open for writing, which network file systems require.
    wait: wait until nobody else holds the lock.

  Returns:
    True; False if somebody else holds the lock; None if the platform or the file system has no locks.
  """
  if fcntl is None:
    return None
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
  except OSError as error:
    if error.errno in _BUSY:
      return False
    if error.errno in _UNSUPPORTED:
      return None
    raise
  return True


@contextlib.contextmanager
def exclusive(path: str | os.PathLike[str], what: str, *, wait: bool = False, warn: bool = True) -> Iterator[bool]:
  """Holds a lock, which no other process or thread can hold at the same time.

  A thread that holds the lock already gets it again.

  Args:
    path: the lock file, in an existing folder. It exists while the lock is held; left by a killed process, it means
      nothing.
    what: what it protects, for messages.
    wait: wait for others instead of raising.
    warn: say so where there are no locks.

  Yields:
    True; False where there are no locks.

  Raises:
    InUse: somebody else holds the lock; names the process.
    OSError: the file cannot be written.
  """
  path, thread = pathlib.Path(path), threading.get_ident()
  key = os.path.realpath(path)
  with _held_guard:
    owner, is_locked = _held.get(key, (None, False))
  if owner == thread:
    yield is_locked
    return
  descriptor, is_locked = _acquire(path, what, wait=wait)
  try:
    if warn and not is_locked:
      logger.warning(f'{what}: this file system has no locks; do not start the same job twice')
    _write_holder(descriptor)
    with _held_guard:
      _held[key] = thread, is_locked
    yield is_locked
  finally:
    with _held_guard:
      _held.pop(key, None)
    with contextlib.suppress(OSError):
      path.unlink()  # while it is locked: who waits for it notices in `_acquire`
    os.close(descriptor)


def _acquire(path: pathlib.Path, what: str, *, wait: bool) -> tuple[int, bool]:
  """Returns the descriptor of the lock file, and whether it is locked."""
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      locked = try_lock(descriptor)
      if locked is False:
        holder = _holder(descriptor)
        if not wait:
          raise InUse(f'{what} is in use by another process{holder}; wait until it ends, or use another folder')
        logger.info(f'waiting for another process{holder}, which writes {what}')
        locked = try_lock(descriptor, wait=True)
      if locked is None or is_at(descriptor, path):
        return descriptor, locked is not None
    except BaseException:
      os.close(descriptor)
      raise
    os.close(descriptor)  # its holder removed it meanwhile: the lock of this name is another file


def is_at(descriptor: int, path: pathlib.Path) -> bool:
  """Returns True if an open file still has its name."""
  try:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))
  except FileNotFoundError:
    return False


def _write_holder(descriptor: int) -> None:
  with contextlib.suppress(OSError):  # a full disk does not matter here
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f'process {os.getpid()} on {socket.gethostname()}'.encode(), 0)


def _holder(descriptor: int) -> str:
  """Returns who holds the lock, in parentheses, as far as the file says it."""
  with contextlib.suppress(OSError):
    text = os.pread(descriptor, _MAX_HOLDER, 0).decode('utf-8', 'replace')
    return f' ({text})' if text.isprintable() and text else ''
  return ''
