"""The encoded bytes of an image: of a file, or of a record in a prepared data set (TFDS, ArrayRecord)."""

import functools
import os
import tempfile
import threading
from typing import Any

from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, read_json, read_regular
from dgnet_jax.utils.extras import install_command

BUILDERS_MODULE = 'dgnet_jax.data.tfds_builders'
MAX_IMAGE_BYTES = 2**28  # of a file; a PNG of the most pixels that are decoded can be this large
_DIGITS = 9  # so that addresses sort by position


class RecordAddress(str):
  """Stands in for the path of an image; made by `record_address` only, so that the path of a file never is one.

  Attributes:
    folder: folder of the prepared data set.
    split_name: name of the split.
    position: index of the record in the split.
    original: path of the image in the data set that the record was made from, relative to its root.
  """

  folder: str
  split_name: str
  position: int
  original: str


def record_address(folder: str | os.PathLike[str], split: str, position: int, name: str) -> RecordAddress:
  """Returns the address of a record, which stands in for a path and ends in the image's file name.

  Args:
    folder: folder of the prepared data set.
    split: name of the split.
    position: index of the record in the split.
    name: path of the image in the original data set; its file name is shown in messages.
  """
  address = RecordAddress(os.path.join(folder, f'{split}@{position:0{_DIGITS}d}', os.path.basename(name)))
  address.folder, address.split_name, address.position = os.fspath(folder), split, position
  address.original = name
  return address


def record_features() -> Any:
  """Returns TFDS's description of the features of a record, `FeaturesDict`; imports TFDS."""
  import numpy as np
  import tensorflow_datasets as tfds

  features = {
    'image': tfds.features.Image(shape=(None, None, 3)),
    'identity': tfds.features.Scalar(np.int32),
    'camera': tfds.features.Scalar(np.int32),
    'path': tfds.features.Text(),
  }
  return tfds.features.FeaturesDict(features)


def _described(folder: str, name: str) -> Any:
  """Returns the content of a JSON file beside the records."""
  path = os.path.join(folder, name)
  try:
    return read_json(path, MAX_DESCRIPTION_BYTES)
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: cannot be read ({error}); prepare the data set again') from error


def _check_written_by_our_builders(folder: str) -> None:
  """Raises UserError for the records of other builders: TFDS imports the modules that their descriptions name."""
  info = _described(folder, 'dataset_info.json')
  if not isinstance(info, dict) or info.get('moduleName') != BUILDERS_MODULE:
    raise UserError(f'{folder}/dataset_info.json: not written by the builders of dgnet_jax; use `dgnet prepare`')
  with tempfile.TemporaryDirectory() as ours:
    record_features().save_config(ours)
    expected = _described(ours, 'features.json')
  if _described(folder, 'features.json') != expected:
    raise UserError(
      f'{folder}/features.json: not what `dgnet prepare` writes with this version of TensorFlow Datasets; prepare the '
      'data set again'
    )


class _Records:
  """The records of one split, read one at a time because the reader is not thread-safe."""

  def __init__(self, folder: str, split: str) -> None:
    try:
      import tensorflow_datasets as tfds
    except ImportError as error:
      raise UserError(
        f'{folder}: reading a prepared data set needs TensorFlow Datasets: {install_command("tfds")}'
      ) from error
    _check_written_by_our_builders(folder)
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


def read_bytes(path: str | os.PathLike[str]) -> bytes:
  """Reads the encoded bytes of an image.

  Args:
    path: path of a file, or address of a record.

  Raises:
    OSError: the file cannot be read, is not a regular file, or is larger than `MAX_IMAGE_BYTES`.
    UserError: the record cannot be read, or TensorFlow Datasets is not installed.
  """
  if not isinstance(path, RecordAddress):
    return read_regular(path, MAX_IMAGE_BYTES)
  records = _records(path.folder, path.split_name)
  try:
    return records.read(path.position)
  except Exception as error:
    raise UserError(f'{path}: the record cannot be read ({error})') from error
