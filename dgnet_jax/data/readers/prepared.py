"""A data set prepared by TensorFlow Datasets from one of the other layouts: records instead of files."""

import json
import pathlib
from typing import Any

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.image_bytes import record_address
from dgnet_jax.data.index import Image
from dgnet_jax.data.layouts import SPLITS, Layout
from dgnet_jax.data.readers.listing import Found
from dgnet_jax.errors import UserError

METADATA = 'metadata.json'  # TFDS's name for what a builder says beyond its features
SPLIT_METADATA = ('path', 'identity', 'camera')  # for each split, lists of equal length


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> Found:
  """Reads who is on which record; opens no record, and needs no TensorFlow.

  Raises:
    UserError: it is no folder that our builders prepared, or one of an interrupted preparation.
  """
  path = root / METADATA
  try:
    metadata = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path}: cannot be read ({error}); data.root must be the folder of a version, like market1501/1.0.0'
    ) from error
  images = {}
  for split in SPLITS:
    table = metadata.get(split) if isinstance(metadata, dict) else None
    if table is None:
      continue
    columns: list[Any] = [table.get(name) for name in SPLIT_METADATA] if isinstance(table, dict) else []
    if not columns or not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
      raise UserError(f'{path}: {split}: not written by the builders of dgnet_jax; prepare the data set again')
    images[split] = [
      Image(record_address(root, split, place, name), identity, camera)
      for place, (name, identity, camera) in enumerate(zip(*columns, strict=True))
    ]
  if not images:
    raise UserError(f'{path}: no split of {", ".join(SPLITS)}: not written by the builders of dgnet_jax')
  return Found(images, root)


def recognise(layout: Layout, root: pathlib.Path) -> bool:
  """Whether TFDS's files are there."""
  return (root / METADATA).is_file() and (root / 'features.json').is_file()
