"""A data set prepared by TensorFlow Datasets from one of the other layouts: records instead of files."""

import json
import pathlib
from typing import Any

from dgnet_jax.config import UserError
from dgnet_jax.data.contents import record_address
from dgnet_jax.data.index import Picture
from dgnet_jax.data.layouts import SPLITS, Layout
from dgnet_jax.data.readers.listing import Found, Log

METADATA = 'metadata.json'  # TFDS's name for what a builder says beyond its features
SPLIT_METADATA = ('path', 'identity', 'camera')  # for each split, lists of equal length


def read(layout: Layout, root: pathlib.Path, data_config: Any, log: Log) -> Found:
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
  pictures = {}
  for split in SPLITS:
    table = metadata.get(split) if isinstance(metadata, dict) else None
    if table is None:
      continue
    columns: list[Any] = [table.get(name) for name in SPLIT_METADATA] if isinstance(table, dict) else []
    if not columns or not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
      raise UserError(f'{path}: {split}: not written by the builders of dgnet_jax; prepare the data set again')
    pictures[split] = [
      Picture(record_address(root, split, place, name), identity, camera)
      for place, (name, identity, camera) in enumerate(zip(*columns, strict=True))
    ]
  if not pictures:
    raise UserError(f'{path}: no split of {", ".join(SPLITS)}: not written by the builders of dgnet_jax')
  return Found(pictures, root)


def recognise(layout: Layout, root: pathlib.Path) -> bool:
  """Whether TFDS's files are there."""
  return (root / METADATA).is_file() and (root / 'features.json').is_file()
