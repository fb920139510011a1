"""Finds the files of a release snapshot and reads the state dicts in them."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import re

import numpy as np

from dgnet_jax.errors import UserError
from dgnet_jax.interop.strict import check_state_dict, unwrapped
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.utils.paths import local_path

KEPT_FOLDER = 'release'  # in the work folder: what only the release has, for a later export
KEPT_ARRAYS = 'arrays.pt'
SNAPSHOT = re.compile(r'(gen|dis|id)_(\d+)\.pt')
OPTIONAL = ('dis', 'optimizer', 'teacher')
HINTS = {
  'gen': 'required',
  'id': 'required',
  'dis': '--without dis starts a new one',
  'optimizer': '--without optimizer starts with zero moments',
  'teacher': 'pass its path with --teacher, or --without teacher',
}


@dataclasses.dataclass(frozen=True)
class ReleaseFiles:
  """The files of one snapshot.

  Attributes:
    paths: paths by name: gen and id, and if present dis, optimizer, teacher, config and opts.
    step: the number in the file names.
  """

  paths: Mapping[str, pathlib.Path]
  step: int


def find_files(
  folder: str | pathlib.Path,
  teacher: str | pathlib.Path | None,
  *,
  step: int | None = None,
  without: Sequence[str] = (),
) -> ReleaseFiles:
  """Finds the files of one snapshot.

  Args:
    folder: has gen_*.pt, dis_*.pt, id_*.pt and optimizer.pt, and config.yaml there or in its parent folder.
    teacher: net_last.pth with opts.yaml beside it, or their folder; None if there is no teacher.
    step: step of the snapshot; None takes the newest.
    without: which of dis, optimizer and teacher to leave out.

  Raises:
    UserError: the folder, the snapshot or a file is missing. The message lists all missing files.
  """
  folder = local_path(folder)
  if not folder.is_dir():
    raise UserError(f'{folder}: no such folder')
  chosen, candidates = _snapshot(folder, step)
  candidates['optimizer'] = folder / 'optimizer.pt'
  candidates['config'] = folder / 'config.yaml'
  if not candidates['config'].exists():
    candidates['config'] = folder.parent / 'config.yaml'
  if teacher is not None:
    path = local_path(teacher)
    candidates['teacher'] = path / 'net_last.pth' if path.is_dir() else path
    candidates['opts'] = candidates['teacher'].parent / 'opts.yaml'
  paths = {name: path for name, path in candidates.items() if path.is_file() and name not in without}
  missing = [name for name in ('gen', 'id', *OPTIONAL) if name not in paths and name not in without]
  if missing:
    raise UserError(
      f'{folder}: files of step {chosen} are missing: {", ".join(f"{name} ({HINTS[name]})" for name in missing)}'
    )
  return ReleaseFiles(paths, chosen)


def _snapshot(folder: pathlib.Path, step: int | None) -> tuple[int, dict[str, pathlib.Path]]:
  """Returns the step of a snapshot, by default the newest, and its files of networks."""
  snapshots: dict[int, dict[str, pathlib.Path]] = {}
  for path in sorted(folder.iterdir()):
    if match := SNAPSHOT.fullmatch(path.name):
      snapshots.setdefault(int(match[2]), {})[match[1]] = path
  if not snapshots:
    raise UserError(f'{folder}: no snapshot of the release (gen_*.pt, id_*.pt) in this folder')
  chosen = max(snapshots) if step is None else step
  if chosen not in snapshots:
    raise UserError(f'{folder}: no snapshot of step {step}; available: {", ".join(map(str, sorted(snapshots)))}')
  return chosen, snapshots[chosen]


def read_state_dict(network: str, path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the arrays of a network by name.

  Args:
    network: gen, dis, id or teacher.
    path: the network's file.

  Raises:
    UserError: the file is damaged or holds something else.
  """
  content = read_torch(path)
  if network == 'teacher':
    return unwrapped(content, str(path))
  if not isinstance(content, dict) or 'a' not in content:
    raise UserError(f"{path}: not a '{network}' file of the release, which holds a state dict under the key 'a'")
  return check_state_dict(content['a'], str(path))
