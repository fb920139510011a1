"""The work folder of a job, on a file system or on object storage, for all its processes."""

from collections.abc import Iterator
import contextlib
import dataclasses
import logging
import os
import pathlib
import signal
import threading

import jax

from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.storage.local_copies import WorkingCopy, fetched, kept_in_step
from dgnet_jax.storage.remote_folder import RemoteFolder
from dgnet_jax.training.agreement import in_all_processes, is_alone
from dgnet_jax.training.checkpoints import check_folder
from dgnet_jax.training.shared_folder import check_shared
from dgnet_jax.utils.paths import is_address, local_path

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class WorkFolder:
  """The work folder of a job.

  Attributes:
    path: the local folder.
    address: of the folder on object storage of which `path` is a copy; '' without one.
    copy: sends the changes of `path`; None in all processes but the first.
  """

  path: pathlib.Path
  address: str = ''
  copy: WorkingCopy | None = None

  @property
  def is_shared(self) -> bool:
    """True if all processes of the job have the same local folder."""
    return not self.address or is_alone()

  def refresh(self) -> None:
    """Lets every process see what the first one has written. To be called by all.

    Raises:
      MachineError: it cannot be sent to the storage.
    """
    if not self.is_shared:
      in_all_processes(lambda: self.copy.send() if self.copy else None)
      in_all_processes(lambda: None if self.copy else fetched(self.address))


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], log_name: str) -> Iterator[WorkFolder]:
  """Opens the work folder of a job in all its processes.

  Of a folder on object storage every process has a local copy. The first process locks the folder, and keeps it in step
  with its copy; another one sends its log alone.

  Args:
    path: a local path, or an address like gs://bucket/runs/market; created if missing.
    log_name: this process's log in the folder.

  Raises:
    UserError: it cannot be a work folder, is not shared by all processes, or another job works in it.
    MachineError: at the end, if the last changes cannot be sent to the storage.
  """
  if not is_address(path):
    folder = in_all_processes(lambda: _created(local_path(path), log_name))
    check_shared(folder)
    yield WorkFolder(folder)
    return
  remote, is_first = in_all_processes(lambda: RemoteFolder(os.fspath(path))), jax.process_index() == 0
  with _termination_as_interruption(), contextlib.ExitStack() as stack:

    def open_copy() -> WorkFolder:
      if is_first:
        copy = stack.enter_context(kept_in_step(remote.address))
        return WorkFolder(copy.folder, remote.address, copy)
      folder = _fetched_with_log(remote, log_name)
      stack.callback(_send_log, remote, folder / log_name)
      return WorkFolder(folder, remote.address)

    # One after the other: what the others fetch is what the first has.
    opened_first = in_all_processes(lambda: open_copy() if is_first else None)
    work_folder = in_all_processes(lambda: opened_first or open_copy())
    in_all_processes(lambda: _created(work_folder.path, log_name))
    yield work_folder
    # All wait until everything is sent. A job that fails sends what it has, and does not wait for processes that may
    # be gone.
    in_all_processes(stack.close)


def _fetched_with_log(remote: RemoteFolder, log_name: str) -> pathlib.Path:
  """Fetches what a process needs that is not the first, and its log if that is not here or longer there."""
  folder = fetched(remote.address)
  log, stored = folder / log_name, remote.list_files().get(log_name)
  if stored is not None and not (log.exists() and log.stat().st_size >= stored.size):
    remote.download(log_name, log)
  return folder


def _send_log(remote: RemoteFolder, log: pathlib.Path) -> None:
  try:
    remote.upload(log, log.name)
  except (OSError, UserError) as error:  # it stays here; what stopped the job matters more
    logger.warning(f'the log of this process is not sent: {error}')


@contextlib.contextmanager
def _termination_as_interruption() -> Iterator[None]:
  """Within the context, SIGTERM to a job of one process raises Interrupted where nothing else waits for it.

  The default would end the process before its last changes are sent. A second signal has this default effect.
  """
  if not is_alone() or threading.current_thread() is not threading.main_thread():
    yield
    return
  previous = signal.getsignal(signal.SIGTERM)

  def on_signal(*_: object) -> None:
    signal.signal(signal.SIGTERM, previous)
    raise Interrupted('stopped by SIGTERM. Run the same command to go on.')

  signal.signal(signal.SIGTERM, on_signal)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)


def _created(folder: pathlib.Path, log_name: str) -> pathlib.Path:
  """Creates a work folder with a log, and returns it; raises UserError if it cannot be one."""
  check_folder(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / log_name).open('a').close()
  except OSError as error:
    raise UserError(f'--workdir {folder}: cannot be written to ({error.strerror})') from error
  return folder
