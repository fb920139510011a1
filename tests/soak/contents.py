"""What a job has left in its folder, in a form that is equal for an interrupted and an unbroken run."""

from collections.abc import Iterator
import hashlib
import json
import pathlib
import struct
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event

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


def _curves(folder: pathlib.Path) -> dict[str, list[tuple[int, Any]]]:
  """Reads what TensorBoard shows: files in the order of their names, where a start drops what follows its step."""
  curves: dict[str, list[tuple[int, Any]]] = {}
  for path in sorted(folder.iterdir()):
    for event in _events(path):
      if event.HasField('session_log'):
        curves = {tag: [point for point in points if point[0] < event.step] for tag, points in curves.items()}
      for value in event.summary.value:
        image = hashlib.sha256(value.image.encoded_image_string).hexdigest()
        shown = value.simple_value if value.HasField('simple_value') else image
        curves.setdefault(value.tag, []).append((event.step, shown))
  return curves


def _events(path: pathlib.Path) -> Iterator[Event]:
  """Reads TFRecords: length u64, its checksum u32, content, its checksum u32. A killed process cuts the last one."""
  data = path.read_bytes()
  while len(data) >= 16:
    (length,) = struct.unpack('<Q', data[:8])
    if len(data) < 16 + length:
      return
    yield Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]


def _file(path: pathlib.Path) -> str:
  if path.name in RECORDS:
    return 'exists'
  content = path.read_bytes()
  if path.name == 'results.json':
    content = json.dumps(json.loads(content) | {'root': ''}).encode()
  return hashlib.sha256(content).hexdigest()
