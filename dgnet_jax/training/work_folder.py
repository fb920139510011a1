"""The work folder of a job, on a file system or on object storage, for all its processes."""

from collections.abc import Iterator
import contextlib
import dataclasses
import logging
import os
import pathlib

import jax

from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.storage.local_copies import fetched, kept_in_step, send_changes
from dgnet_jax.storage.remote_folder import RemoteFolder
from dgnet_jax.training.agreement import from_first_process, in_all_processes, is_alone
from dgnet_jax.training.checkpoints import check_folder
from dgnet_jax.training.shared_folder import check_shared
from dgnet_jax.utils.paths import is_address, local_path

LOGGER = logging.getLogger('dgnet_jax')


@dataclasses.dataclass(frozen=True)
class WorkFolder:
  """The work folder of a job.

  Attributes:
    path: the local folder.
    address: of the folder on object storage of which `path` is a copy; '' without one.
  """

  path: pathlib.Path
  address: str = ''

  @property
  def is_shared(self) -> bool:
    """True if all processes of the job have the same local folder."""
    return not self.address or is_alone()

  @contextlib.contextmanager
  def named(self) -> Iterator[None]:
    """Within the context, log records and errors for the user show the address in place of the local copy."""
    if not self.address:
      yield
      return
    here, handlers = str(self.path), [*LOGGER.handlers]

    def with_address(record: logging.LogRecord) -> bool:
      record.msg, record.args = record.getMessage().replace(here, self.address), ()
      return True

    for handler in handlers:
      handler.addFilter(with_address)
    try:
      yield
    except (UserError, Interrupted) as error:
      error.args = tuple(str(argument).replace(here, self.address) for argument in error.args)
      raise
    finally:
      for handler in handlers:
        handler.removeFilter(with_address)

  def refresh(self) -> None:
    """Lets every process see what the first one has written. To be called by all."""
    if not self.is_shared:
      from_first_process(lambda: send_changes(self.address))
      in_all_processes(lambda: None if _is_first() else fetched(self.address))


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
  remote = in_all_processes(lambda: RemoteFolder(os.fspath(path)))
  with contextlib.ExitStack() as first_process:
    # One after the other: what the others fetch is what the first has.
    copy = from_first_process(lambda: str(first_process.enter_context(kept_in_step(remote.address))))
    folder = in_all_processes(lambda: pathlib.Path(copy) if _is_first() else _fetched_with_log(remote, log_name))
    in_all_processes(lambda: _created(folder, log_name))
    yield WorkFolder(folder, remote.address)
    # A job that fails sends what it has without waiting for the others, which may be gone.
    in_all_processes(first_process.close if _is_first() else lambda: remote.upload(folder / log_name, log_name))


def _fetched_with_log(remote: RemoteFolder, log_name: str) -> pathlib.Path:
  folder = fetched(remote.address)
  with contextlib.suppress(FileNotFoundError):
    remote.download(log_name, folder / log_name)
  return folder


def _is_first() -> bool:
  return jax.process_index() == 0


def _created(folder: pathlib.Path, log_name: str) -> pathlib.Path:
  """Creates a work folder with a log, and returns it; raises UserError if it cannot be one."""
  check_folder(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / log_name).open('a').close()
  except OSError as error:
    raise UserError(f'--workdir {folder}: cannot be written to ({error.strerror})') from error
  return folder
