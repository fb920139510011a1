"""Replaces checkpoints so that a process killed at any moment leaves the old ones or the new one, complete.

A checkpoint that is to be replaced is renamed, and removed once the new one is complete. Orbax cannot overwrite a
checkpoint, and its delete removes the files at once. Of several processes only the one that writes calls this.
"""

from collections.abc import Sequence
import pathlib
import re
import shutil

ASIDE = re.compile(r'\.replaced_(?P<old>\d+)_by_(?P<new>\d+)')


def move_aside(folder: pathlib.Path, steps: Sequence[int], *, new_step: int) -> None:
  """Renames the checkpoints of `steps`, which that of `new_step` will replace, so that Orbax does not see them."""
  for step in steps:
    (folder / str(step)).rename(folder / f'.replaced_{step}_by_{new_step}')


def complete_steps(folder: pathlib.Path) -> list[int]:
  """Returns the steps of all checkpoints that are complete on disk, also of those that `recover` would restore."""
  names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
  aside = [match for name in names if (match := ASIDE.fullmatch(name)) and match['new'] not in names]
  return sorted({*(int(name) for name in names if name.isdecimal()), *(int(match['old']) for match in aside)})


def recover(folder: pathlib.Path) -> None:
  """Removes moved checkpoints that have been replaced, and restores the names of those without a replacement."""
  aside = [match for path in folder.iterdir() if (match := ASIDE.fullmatch(path.name))] if folder.is_dir() else []
  # A checkpoint with the step of its replacement comes last: renamed, it would look like the others' replacement.
  for match in sorted(aside, key=lambda match: match['old'] == match['new']):
    path = folder / match.string
    if (folder / match['new']).exists():
      shutil.rmtree(path)
    else:
      path.rename(folder / match['old'])
