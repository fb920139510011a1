"""The encoded bytes of an image: of a file, or of a record in a prepared data set (TFDS, ArrayRecord)."""

import functools
import os
import re
import threading
from typing import Any

from dgnet_jax.errors import UserError
from dgnet_jax.utils.extras import install_command

_RECORD = re.compile(r'(?P<folder>.+)[/\\](?P<split>\w+)@(?P<position>\d+)[/\\][^/\\]*')
_DIGITS = 9  # so that addresses sort by position


def record_address(folder: str | os.PathLike[str], split: str, position: int, name: str) -> str:
  """Returns the address of a record, which stands in for a path and ends in the image's file name.

  Args:
    folder: folder of the prepared data set.
    split: name of the split.
    position: index of the record in the split.
    name: file name of the image, shown in messages.
  """
  return os.path.join(folder, f'{split}@{position:0{_DIGITS}d}', os.path.basename(name))


def is_record(path: str | os.PathLike[str]) -> bool:
  """Returns True if `path` is an address made by `record_address`."""
  return _RECORD.fullmatch(os.fspath(path)) is not None


def record_folder(address: str) -> str:
  """Returns the folder of the prepared data set that a record belongs to; '' if `address` is not of a record."""
  match = _RECORD.fullmatch(address)
  return match['folder'] if match else ''


class _Records:
  """The records of one split, read one at a time because the reader is not thread-safe."""

  def __init__(self, folder: str, split: str) -> None:
    try:
      import tensorflow_datasets as tfds
    except ImportError as error:
      raise UserError(
        f'{folder}: reading a prepared data set needs TensorFlow Datasets: {install_command("tfds")}'
      ) from error
    try:
      builder = tfds.builder_from_directory(folder)
      self._source = builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})
    except Exception as error:  # damaged files make its readers raise anything
      raise UserError(f'{folder}, {split}: cannot be read as a prepared data set: {error}') from error
    self._lock = threading.Lock()

  def read(self, position: int) -> bytes:
    with self._lock:
      record: Any = self._source[position]
    return bytes(record['image'])


_records = functools.lru_cache(maxsize=16)(_Records)


def read_bytes(path: str) -> bytes:
  """Reads the encoded bytes of an image.

  Args:
    path: path of a file, or address of a record.

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
    return records.read(int(match['position']))
  except Exception as error:
    raise UserError(f'{path}: the record cannot be read ({error})') from error
