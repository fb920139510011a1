"""A data set prepared by TensorFlow Datasets from one of the other layouts: records instead of files."""

import json
import pathlib
from typing import Any

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.image_bytes import record_address
from dgnet_jax.data.index import LabeledImage
from dgnet_jax.data.layouts import SPLITS, Layout
from dgnet_jax.data.readers.listing import ReadImages
from dgnet_jax.errors import UserError

METADATA = 'metadata.json'  # TFDS's file for a builder's own metadata
COLUMNS = ('path', 'identity', 'camera')  # for each split, lists of equal length


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> ReadImages:
  """Reads the labels of all records, without opening any record or importing TensorFlow.

  Raises:
    UserError: the folder was not prepared by this package's builders, or the preparation was interrupted.
  """
  path = root / METADATA
  try:
    metadata = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path}: cannot be read ({error}); data.root must be the folder of a version, like market1501/1.0.0'
    ) from error
  images = {}
  for split in SPLITS:
    table = metadata.get(split) if isinstance(metadata, dict) else None
    if table is None:
      continue
    columns: list[Any] = [table.get(name) for name in COLUMNS] if isinstance(table, dict) else []
    if not columns or not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
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
