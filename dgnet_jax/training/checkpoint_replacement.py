"""Replaces checkpoints so that a process killed at any moment leaves the old ones or the new one, complete.

A checkpoint that is to be replaced is renamed, and removed once the new one is complete. Orbax cannot overwrite a
checkpoint, and deletes only outright.
"""

from collections.abc import Sequence
import pathlib
import re
import shutil

import jax
from jax.experimental import multihost_utils

ASIDE = re.compile(r'\.replaced_(?P<old>\d+)_by_(?P<new>\d+)')


def move_aside(folder: pathlib.Path, steps: Sequence[int], *, new_step: int) -> None:
  """Renames the checkpoints of `steps`, which the one of `new_step` replaces, so that Orbax does not see them."""
  if jax.process_index() == 0:
    for step in steps:
      (folder / str(step)).rename(folder / f'.replaced_{step}_by_{new_step}')
  _wait_for_all_processes()


def recover(folder: pathlib.Path) -> None:
  """Removes the checkpoints that were moved aside and are replaced; puts back those whose replacement is missing."""
  if jax.process_index() == 0 and folder.is_dir():
    aside = [match for path in folder.iterdir() if (match := ASIDE.fullmatch(path.name))]
    # One that has the step of its replacement comes last: put back, it would look like the replacement of the others.
    for match in sorted(aside, key=lambda match: match['old'] == match['new']):
      path = folder / match.string
      if (folder / match['new']).exists():
        shutil.rmtree(path)
      else:
        path.rename(folder / match['old'])
  _wait_for_all_processes()


def _wait_for_all_processes() -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('replaced checkpoints')
