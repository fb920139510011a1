"""What a job has left in its folder, in a form that is equal for an interrupted and an unbroken run."""

import hashlib
import json
import pathlib
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dgnet_jax.training.checkpoints import Checkpoints

# They name folders, times and processes.
RECORDS = ('log.txt', 'run.json', 'verified_images.json')
Contents = dict[str, Any]


def contents(folder: pathlib.Path) -> Contents:
  """Describes a folder.

  Returns:
    By relative path: the checksum of each file; the step and the checksums of all arrays of the newest checkpoint of
    each folder of checkpoints; the curves of each folder of TensorBoard files, as TensorBoard shows them. Files that
    should not be there, such as temporary ones, count like all others.
  """
  found: Contents = {}
  for path in sorted(folder.rglob('*')):
    name = str(path.relative_to(folder))
    if path.name == 'checkpoints' and path.is_dir():
      found[name] = _newest_state(path)
    elif path.name == 'tensorboard' and path.is_dir():
      found[name] = _curves(path)
    elif path.is_file() and not {'checkpoints', 'tensorboard'} & set(path.relative_to(folder).parent.parts):
      found[name] = _file(path)
  return found


def differences(one: Contents, other: Contents) -> list[str]:
  """Returns the names of what differs, and how."""
  names = sorted(one.keys() | other.keys())
  return [
    f'{name}: {"missing" if name not in other else "unexpected" if name not in one else "differs"}'
    for name in names
    if name not in one or name not in other or one[name] != other[name]
  ]


def _newest_state(folder: pathlib.Path) -> dict[str, Any]:
  unfinished = [path.name for path in folder.iterdir() if not path.name.isdecimal()]
  checkpoints = Checkpoints(folder)
  step = checkpoints.latest_step()
  return {'step': step, 'arrays': checkpoints._reader._description(step)['leaves'], 'unfinished': unfinished}


def _curves(folder: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
  events = EventAccumulator(str(folder), size_guidance={'scalars': 0, 'images': 0})
  events.Reload()
  curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()['scalars']}
  for tag in events.Tags()['images']:
    curves[tag] = [(event.step, len(event.encoded_image_string)) for event in events.Images(tag)]
  return curves


def _file(path: pathlib.Path) -> str:
  if path.name in RECORDS:
    return 'exists'
  content = path.read_bytes()
  if path.name == 'results.json':
    content = json.dumps(json.loads(content) | {'root': ''}).encode()
  return hashlib.sha256(content).hexdigest()
