"""Finds the release's files, and reads the state dicts in them."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import re
from typing import Any

from dgnet_jax.errors import UserError
from dgnet_jax.interop.strict import check_state_dict
from dgnet_jax.interop.torch_file import read_torch

KEPT_FOLDER = 'release'  # in the work folder: what the release has and ours does not, for the way back
KEPT_ARRAYS = 'arrays.pt'
SNAPSHOT = re.compile(r'(gen|dis|id)_(\d+)\.pt')
OPTIONAL = ('dis', 'optimizer', 'teacher')
OURS = {'gen': 'generator', 'dis': 'discriminator', 'id': 'reid'}


@dataclasses.dataclass(frozen=True)
class ReleaseFiles:
  """paths: of gen, id, and where there are such, dis, optimizer, teacher, config and opts. step: as the names say."""

  paths: Mapping[str, pathlib.Path]
  step: int


def find_files(
  folder: str | pathlib.Path,
  teacher: str | pathlib.Path | None,
  *,
  step: int | None = None,
  without: Sequence[str] = (),
) -> ReleaseFiles:
  """The files of one snapshot.

  Args:
    folder: with gen_*.pt, dis_*.pt, id_*.pt, optimizer.pt and config.yaml (there or one folder up).
    teacher: net_last.pth, with opts.yaml beside it, or its folder; None where there is none.
    step: of the snapshot; None takes the newest.
    without: of dis, optimizer and teacher, what is not there, or is not wanted.

  Raises:
    UserError: a file is missing; names it and what to do.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise UserError(f'{folder}: no such folder')
  snapshots: dict[int, dict[str, pathlib.Path]] = {}
  for path in sorted(folder.iterdir()):
    if match := SNAPSHOT.fullmatch(path.name):
      snapshots.setdefault(int(match[2]), {})[match[1]] = path
  if not snapshots or (step is not None and step not in snapshots):
    there = f'there are {", ".join(map(str, sorted(snapshots)))}' if snapshots else 'no gen_*.pt and id_*.pt are in it'
    raise UserError(f'{folder}: no snapshot{"" if step is None else f" of step {step}"}; {there}')
  chosen = max(snapshots) if step is None else step
  candidates = snapshots[chosen] | {'optimizer': folder / 'optimizer.pt'}
  candidates['config'] = folder / 'config.yaml'
  if not candidates['config'].exists():
    candidates['config'] = folder.parent / 'config.yaml'
  if teacher is not None:
    file = pathlib.Path(teacher)
    candidates['teacher'] = file / 'net_last.pth' if file.is_dir() else file
    candidates['opts'] = candidates['teacher'].parent / 'opts.yaml'
  paths = {name: path for name, path in candidates.items() if path.is_file() and name not in without}
  missing = [name for name in ('gen', 'id', *OPTIONAL) if name not in paths and name not in without]
  if missing:
    hints = {'gen': 'needed', 'id': 'needed', 'teacher': '--teacher PATH names it, --without teacher does without'}
    texts = [f'{name} ({hints.get(name, f"--without {name} begins it anew")})' for name in missing]
    raise UserError(f'{folder}, step {chosen}: missing are {", ".join(texts)}')
  return ReleaseFiles(paths, chosen)


def read_state_dict(name: str, path: pathlib.Path) -> dict[str, Any]:
  """The arrays of gen, dis, id or teacher by name.

  Raises:
    UserError: the file is damaged or holds something else.
  """
  content = read_torch(path)
  if name == 'teacher':
    return check_state_dict(content, str(path))
  if not isinstance(content, dict) or 'a' not in content:
    raise UserError(f"{path}: no '{name}' of the release, which has its arrays under 'a'")
  return check_state_dict(content['a'], str(path))
