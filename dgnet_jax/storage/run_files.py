"""The files of a work folder by name: checkpoints, what stays on a machine, and what a job or a reader needs."""

from collections.abc import Callable, Collection, Iterable, Mapping
import re
from typing import TypeVar

File = TypeVar('File')

MARKER = '_CHECKPOINT_METADATA'  # of Orbax, in each complete checkpoint
CHECKPOINT = re.compile(r'(?P<folder>(?P<parent>(?:.+/)?checkpoints)/(?P<step>[0-9]{1,18}))/.+')
# What stays on this machine: data that are copied or rendered again elsewhere, locks, files that are being written, and
# the logs of further processes, which these send themselves, and what Weights & Biases sends itself.
OWN = re.compile(
  r'(synthetic_data|data_cache|(teacher/)?wandb)/.*'
  r'|(.*/)?(\.(.+\.)?[0-9a-f]{8}\.part'  # of utils.atomic_files
  r'|\.[a-z_.]*lock|dgnet\.lock|\.dgnet_copy|\.single_files|\.shared_[^/]*|log\.[0-9]+\.txt'
  r'|\.replaced_[^/]*|[^/]*\.orbax-checkpoint-tmp[^/]*)(/.*)?'
)
CHECKPOINT_FOLDERS = ('checkpoints', 'teacher/checkpoints')

Selection = Callable[[Collection[str]], Collection[str]]  # of names of files


def without_incomplete(files: Mapping[str, File]) -> dict[str, File]:
  """Leaves out the files of checkpoints without their marker, and those that stay on a machine."""
  folders = {name.removesuffix(f'/{MARKER}') for name in files if name.endswith(f'/{MARKER}')}
  return {
    name: file
    for name, file in files.items()
    if not OWN.fullmatch(name) and ((match := CHECKPOINT.fullmatch(name)) is None or match['folder'] in folders)
  }


def checkpoints_of(names: Iterable[str]) -> set[str]:
  """Returns the folders of the checkpoints that files belong to."""
  return {match['folder'] for name in names if (match := CHECKPOINT.fullmatch(name))}


def descriptions(names: Collection[str]) -> Collection[str]:
  """What says something about a run: of checkpoints only that they exist."""
  return [name for name in all_checkpoints(names) if not CHECKPOINT.fullmatch(name) or name.endswith(f'/{MARKER}')]


def shown_in_reports(names: Collection[str]) -> Collection[str]:
  """Like `descriptions`, with the sheets of generated images and the last grid of training."""
  sheets = [name for name in names if re.fullmatch(r'generated/step_[0-9]+/sheet_[0-9]+\.png', name)]
  grids = sorted(name for name in names if re.fullmatch(r'images/[^/]+\.png', name))
  return [*descriptions(names), *sheets, *grids[-1:]]


def all_checkpoints(names: Collection[str]) -> Collection[str]:
  """What any step of a run needs: like `everything`, without generated images."""
  return [name for name in everything(names) if not name.startswith('generated/')]


def everything(names: Collection[str]) -> Collection[str]:
  """What a job that goes on with a run needs: all but the images and curves of the steps done."""
  return [name for name in names if not name.startswith(('images/', 'tensorboard/', 'teacher/tensorboard/'))]


def newest_checkpoints(names: Collection[str]) -> Collection[str]:
  """What a trained network needs: like `everything`, but of each folder of checkpoints only the newest."""
  return _with_checkpoints(names, {})


def with_checkpoint(step: int) -> Selection:
  """Returns a function like `newest_checkpoints` for the run's checkpoint of this step."""
  return lambda names: _with_checkpoints(names, {'checkpoints': step})


def _with_checkpoints(names: Collection[str], steps: Mapping[str, int]) -> list[str]:
  """Leaves out all checkpoints but those of `steps`, by their folder, and the newest in other folders."""
  found: dict[str, list[int]] = {}
  for name in names:
    if match := CHECKPOINT.fullmatch(name):
      found.setdefault(match['parent'], []).append(int(match['step']))
  chosen = {parent: max(numbers) for parent, numbers in found.items()} | dict(steps)

  def is_needed(name: str) -> bool:
    match = CHECKPOINT.fullmatch(name)
    return match is None or int(match['step']) == chosen[match['parent']]

  return [name for name in all_checkpoints(names) if is_needed(name)]


def marker_of(checkpoint: str) -> str:
  """Returns the name of the file that completes a checkpoint."""
  return f'{checkpoint}/{MARKER}'
