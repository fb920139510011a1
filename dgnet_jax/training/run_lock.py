"""The lock of a work folder: one training job at a time."""

from collections.abc import Iterator
import contextlib
import pathlib

from dgnet_jax.training.agreement import from_first_process
from dgnet_jax.utils.locks import LOCK_FILE, exclusive


@contextlib.contextmanager
def run_lock(workdir: str | pathlib.Path) -> Iterator[None]:
  """Keeps a work folder to this training job; the first of the job's processes holds the lock for all of them.

  Args:
    workdir: created if missing.

  Raises:
    UserError: another job trains in the folder.
    OSError: the folder cannot be written to.
  """
  workdir = pathlib.Path(workdir)
  with contextlib.ExitStack() as stack:

    def lock() -> None:
      workdir.mkdir(parents=True, exist_ok=True)
      stack.enter_context(exclusive(workdir / LOCK_FILE, f'the work folder {workdir}'))

    from_first_process(lock)
    yield
