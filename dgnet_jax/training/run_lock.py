"""The lock of a work folder: one training job at a time."""

from collections.abc import Iterator
import contextlib
import pathlib

import jax
from jax.experimental import multihost_utils
import numpy as np

from dgnet_jax.errors import UserError
from dgnet_jax.utils.locks import LOCK_FILE, InUse, exclusive


@contextlib.contextmanager
def run_lock(workdir: str | pathlib.Path) -> Iterator[None]:
  """Keeps a work folder to this training job; the first of the job's processes holds the lock for all of them.

  Args:
    workdir: created if missing.

  Raises:
    UserError: another job trains in the folder.
    OSError: the folder cannot be written to.
  """
  workdir, refusal = pathlib.Path(workdir), ''
  with contextlib.ExitStack() as stack:
    if jax.process_index() == 0:
      workdir.mkdir(parents=True, exist_ok=True)
      try:
        stack.enter_context(exclusive(workdir / LOCK_FILE, f'the work folder {workdir}'))
      except InUse as error:
        refusal = str(error)
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.asarray(bool(refusal))):
      refusal = refusal or f'the work folder {workdir} is in use by another job; the first process names it'
    if refusal:
      raise UserError(refusal)
    yield
