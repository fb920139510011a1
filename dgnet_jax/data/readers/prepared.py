"""A data set prepared by TensorFlow Datasets from one of the other layouts: records instead of files."""

import pathlib
from typing import Any

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.image_bytes import record_address
from dgnet_jax.data.index import LabeledImage
from dgnet_jax.data.layouts import SPLITS, Layout
from dgnet_jax.data.readers.listing import ReadImages
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import read_json

METADATA = 'metadata.json'  # TFDS's file for a builder's own metadata
COLUMNS = ('path', 'identity', 'camera')  # for each split, lists of strings of equal length


def _columns(table: Any) -> list[list[str]]:
  """Returns the columns of a split; empty if it was not written by the builders."""
  columns: list[Any] = [table.get(name) for name in COLUMNS] if isinstance(table, dict) else []
  is_valid = all(isinstance(column, list) and all(isinstance(name, str) for name in column) for column in columns)
  return columns if is_valid and len(set(map(len, columns))) == 1 else []


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> ReadImages:
  """Reads the labels of all records, without opening any record or importing TensorFlow.

  Raises:
    UserError: the folder was not prepared by this package's builders, or the preparation was interrupted.
  """
  path = root / METADATA
  try:
    metadata = read_json(path)
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: cannot be read ({error}); name the folder of a version, like market1501/1.0.0') from error
  images = {}
  for split in SPLITS:
    table = metadata.get(split) if isinstance(metadata, dict) else None
    if table is None:
      continue
    columns = _columns(table)
    if not columns:
      raise UserError(f'{path}: {split}: not written by the builders of dgnet_jax; prepare the data set again')
    images[split] = [
      LabeledImage(record_address(root, split, position, name), identity, camera)
      for position, (name, identity, camera) in enumerate(zip(*columns, strict=True))
    ]
  if not images:
    raise UserError(f'{path}: no split of {", ".join(SPLITS)}: not written by the builders of dgnet_jax')
  return ReadImages(images, root)


def matches(layout: Layout, root: pathlib.Path) -> bool:
  """Returns True if the files of a prepared data set exist."""
  return (root / METADATA).is_file() and (root / 'features.json').is_file()
