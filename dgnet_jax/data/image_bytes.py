"""The bytes of an image, wherever it is: a file, or a record of a prepared data set (TFDS, ArrayRecord)."""

import functools
import os
import re
import threading
from typing import Any

from dgnet_jax.errors import UserError

_RECORD = re.compile(r'(?P<folder>.+)[/\\](?P<split>\w+)@(?P<place>\d+)[/\\][^/\\]*')
_DIGITS = 9  # so that addresses are sorted as their places are


def record_address(folder: str | os.PathLike[str], split: str, place: int, name: str) -> str:
  """What stands for a path where an image is a record; ends in the image's own file name.

  Args:
    folder: of the prepared data set.
    split: of it.
    place: of the record in the split.
    name: of the image's file, for people.
  """
  return os.path.join(folder, f'{split}@{place:0{_DIGITS}d}', os.path.basename(name))


def is_record(path: str | os.PathLike[str]) -> bool:
  """Whether a path is one of `record_address`."""
  return _RECORD.fullmatch(os.fspath(path)) is not None


class _Records:
  """The images of one split of a prepared data set, read one at a time: the reader is not safe among threads."""

  def __init__(self, folder: str, split: str) -> None:
    try:
      import tensorflow_datasets as tfds
    except ImportError as error:
      raise UserError(
        f'{folder}: reading a prepared data set needs TensorFlow Datasets: install dgnet_jax[tfds]'
      ) from error
    try:
      builder = tfds.builder_from_directory(folder)
      self._source = builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})
    except Exception as error:  # whatever its reader makes of damaged files
      raise UserError(f'{folder}, {split}: cannot be read as a prepared data set: {error}') from error
    self._lock = threading.Lock()

  def read(self, place: int) -> bytes:
    with self._lock:
      record: Any = self._source[place]
    return bytes(record['image'])


_records = functools.lru_cache(maxsize=16)(_Records)


def read_contents(path: str) -> bytes:
  """The bytes of an image's file.

  Args:
    path: of a file, or of `record_address`.

  Raises:
    OSError: the file cannot be read.
    UserError: the record cannot be read, or TensorFlow Datasets is not installed.
  """
  match = _RECORD.fullmatch(path)
  if match is None:
    with open(path, 'rb') as file:
      return file.read()
  records = _records(match['folder'], match['split'])
  try:
    return records.read(int(match['place']))
  except Exception as error:
    raise UserError(f'{path}: the record cannot be read ({error})') from error
