"""What a run and its teacher were trained on, kept beside their checkpoints: identities, files and labels.

Networks have a numbered class for each identity, so data that changed between two starts of a run, or a teacher of
other people, would teach wrong answers without an error.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.image_bytes import RecordAddress
from dgnet_jax.data.images import find_problems, read_encoded
from dgnet_jax.data.index import DatasetIndex, summarize
from dgnet_jax.data.overlaps import digest
from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import write_json
from dgnet_jax.utils.bounded_files import read_json

logger = logging.getLogger(__name__)

RECORD_FILE = 'training_data.json'
FINGERPRINT_DIGITS = 12
HASH_BYTES = 8  # of the content of an image
MIN_EQUAL = 0.5  # of the images that a teacher and a run share by name: fewer equal ones are other people


@dataclasses.dataclass(frozen=True)
class TrainingData:
  """The training images of a run.

  Attributes:
    identities: name of the identity of each class, in order of class.
    images: class and hash of the content of each image, by its path relative to the root of the data set. The hash is
      '' if it is unknown, as for the records of a prepared data set.
  """

  identities: tuple[str, ...]
  images: Mapping[str, tuple[int, str]]

  @functools.cached_property
  def fingerprint(self) -> str:
    """A short text that identifies these data; the value of `data.accept_changes` that accepts them."""
    text = json.dumps([self.identities, sorted(self.images.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]

  def identity_of(self, path: str) -> str:
    """Returns the comparable name of an image's identity."""
    return comparable(self.identities[self.images[path][0]])


def comparable(identity: str) -> str:
  """Returns the name of an identity as it is compared: layouts write one number as 2, 002 or 0002."""
  return identity.lstrip('0') or '0' if identity.isascii() and identity.isdigit() else identity


def describe_training_data(index: DatasetIndex, data_config: DataConfig) -> TrainingData:
  """Describes the training split of a data set; reads its files, each once in the life of a process."""
  train = index.train
  contents = [''] * len(train.paths)

  def describe(i: int) -> None:
    path = train.paths[i]
    with contextlib.suppress(OSError, UserError):  # reported by the verification of the images
      if not isinstance(path, RecordAddress):
        stat = os.stat(path)
        contents[i] = _hash_of_file(path, stat.st_size, stat.st_mtime_ns)

  find_problems(describe, train.paths, threads=data_config.decode_threads, action='comparing')
  names = (
    path.original if isinstance(path, RecordAddress) else os.path.relpath(path, index.root) for path in train.paths
  )
  return TrainingData(
    identities=tuple(index.identity_names.get(identity, str(identity)) for identity in train.class_of),
    images=dict(zip(names, zip(train.classes.tolist(), contents, strict=True), strict=True)),
  )


@functools.cache
def _hash_of_file(path: str, size: int, modified: int) -> str:
  """Returns the hash of a file of this size and time of modification."""
  return digest(read_encoded(path))[:HASH_BYTES].hex()


def write_record(data: TrainingData, folder: pathlib.Path) -> None:
  """Writes the record of a run or teacher to its folder."""
  columns = {
    'paths': list(data.images),
    'classes': [number for number, _ in data.images.values()],
    'contents': [content for _, content in data.images.values()],
  }
  write_json(folder / RECORD_FILE, {'identities': data.identities, **columns})


def read_record(folder: pathlib.Path) -> TrainingData | None:
  """Reads the record in the folder of a run or teacher; None if it is of a version that wrote none.

  Raises:
    UserError: the file is damaged.
  """
  path = folder / RECORD_FILE
  try:
    values = read_json(path)
    identities = tuple(str(name) for name in values['identities'])
    contents = values.get('contents', [''] * len(values['paths']))  # an earlier version wrote none
    rows = zip(values['paths'], map(int, values['classes']), map(str, contents), strict=True)
    images = {str(name): (number, content) for name, number, content in rows}
    if not all(0 <= number < len(identities) for number, _ in images.values()):
      raise ValueError('a class without an identity')
  except FileNotFoundError:
    return None
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
  except (ValueError, TypeError, KeyError) as error:
    raise UserError(f'{path} is damaged ({error}); delete this file to go on without comparing the data') from error
  return TrainingData(identities, images)


def identity_changes(before: Sequence[str], now: Sequence[str]) -> list[str]:
  """Returns what differs between the identities of two lists of classes, with names; nothing if they are the same."""
  known, present = {comparable(name) for name in before}, {comparable(name) for name in now}
  missing = [name for name in before if comparable(name) not in present]
  new = [name for name in now if comparable(name) not in known]
  changes = _listed({'identities are missing': missing, 'identities are new': new})
  if not changes and [comparable(name) for name in before] != [comparable(name) for name in now]:
    changes = ['the same identities have other classes, because their names are sorted in another way']
  return changes


def data_changes(before: TrainingData, now: TrainingData) -> list[str]:
  """Returns what differs between the training data of two starts of a run, with names; nothing if they are the same."""
  kept = [path for path in now.images if path in before.images]
  relabeled = [
    f'{path}: {before.identities[before.images[path][0]]}, now {now.identities[now.images[path][0]]}'
    for path in kept
    if before.identity_of(path) != now.identity_of(path)
  ]
  kinds = {
    'images are missing': [path for path in before.images if path not in now.images],
    'images are new': [path for path in now.images if path not in before.images],
    'images have another identity': relabeled,
    'images have different content': [path for path in kept if not _same_content(before, now, path)],
  }
  return identity_changes(before.identities, now.identities) + _listed(kinds)


def other_people(teacher: TrainingData, now: TrainingData) -> str:
  """Says why the images of a teacher do not show the identities of a run, although the names are the same; or ''.

  A teacher may have seen other images of the same people, so only images with one path are compared.
  """
  shared = [path for path in now.images if path in teacher.images]
  equal = [
    path for path in shared if teacher.identity_of(path) == now.identity_of(path) and _same_content(teacher, now, path)
  ]
  if not shared or len(equal) >= MIN_EQUAL * len(shared):
    return ''
  return f'{len(shared) - len(equal)} of {len(shared)} images of the same name have a different identity or content'


def check_unchanged(data: TrainingData, data_config: DataConfig, workdir: pathlib.Path) -> None:
  """Compares the training data with those of the earlier starts of a run that can be resumed.

  Raises:
    UserError: they have changed, and `data.accept_changes` does not accept it; names the changes.
  """
  before = read_record(workdir)
  can_be_resumed = saved_steps(workdir / 'checkpoints') or saved_steps(workdir / 'teacher' / 'checkpoints')
  if before is None or not can_be_resumed:
    return
  changes = data_changes(before, data)
  if not changes:
    return
  found = f'{workdir}: the training data have changed since the run was started: {"; ".join(changes)}.'
  if len(before.identities) != len(data.identities):
    raise UserError(f'{found} The networks have a class for each identity: restore the data, or use another --workdir.')
  accept(found, data, data_config, 'Restore the data, use another --workdir')


def accept(problem: str, data: TrainingData, data_config: DataConfig, remedy: str) -> None:
  """Logs a problem with the training data that the config accepts.

  Raises:
    UserError: the config does not accept it; ends with the option that does.
  """
  if data_config.accept_changes != data.fingerprint:
    raise UserError(
      f'{problem} {remedy}, or go on all the same with --config.data.accept_changes={data.fingerprint} (this value '
      'accepts these data only).'
    )
  logger.warning(f'{problem} Accepted by data.accept_changes.')


def _same_content(before: TrainingData, now: TrainingData, path: str) -> bool:
  contents = before.images[path][1], now.images[path][1]
  return contents[0] == contents[1] or '' in contents


def _listed(kinds: Mapping[str, Sequence[str]]) -> list[str]:
  return [f'{len(names)} {kind} ({summarize(names)})' for kind, names in kinds.items() if names]


def saved_steps(folder: pathlib.Path) -> list[int]:
  """Returns the steps of the checkpoints in a folder, which is not opened."""
  return [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
