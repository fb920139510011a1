"""Checks that the processes of a job see the same work folder, before they rely on it."""

import contextlib
import pathlib
import secrets
import time

from dgnet_jax.errors import UserError
from dgnet_jax.training.agreement import from_first_process, in_all_processes, is_alone

PATIENCE = 60  # seconds until a network file system must show a new file
PAUSE = 0.5  # seconds


def check_shared(folder: pathlib.Path) -> None:
  """Checks that all processes of a job have the same folder under this name.

  Args:
    folder: an existing folder.

  Raises:
    UserError: a process has another one; names the process.
    OSError: the folder cannot be written to.
  """
  if is_alone():
    return

  def write() -> str:
    token = f'.shared_{secrets.token_hex(8)}'
    (folder / token).touch()
    return token

  token = from_first_process(write)
  try:
    in_all_processes(lambda: _wait_for(folder / token))
  finally:
    with contextlib.suppress(OSError):  # the others find none to remove
      (folder / token).unlink()


def _wait_for(path: pathlib.Path) -> None:
  deadline = time.monotonic() + PATIENCE
  while not path.exists():
    if time.monotonic() > deadline:
      raise UserError(
        f'{path.parent}: not the folder that the first process sees; put the work folder on a file system that all '
        'processes share'
      )
    time.sleep(PAUSE)
