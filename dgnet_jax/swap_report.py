"""The sheet of cross pictures of people never trained on."""

import pathlib
from typing import Any

import numpy as np

from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.photos import Chosen, PhotoFiles
from dgnet_jax.evaluation import sheets
from dgnet_jax.trained import Trained, one_photo_each


def write_swap_sheet(config: Any, index: DatasetIndex, trained: Trained, path: pathlib.Path) -> pathlib.Path:
  """A sheet of test people in each other's clothes; on its diagonal everybody wears their own."""
  chosen = one_photo_each(index.query, config.evaluation.num_swaps)
  photos = PhotoFiles([index.query.paths[i] for i in chosen], tuple(config.data.image_size_hw))[:]
  rows, columns = np.divmod(np.arange(len(photos) ** 2), len(photos))
  made = np.concatenate(list(trained.swap_pictures(Chosen(photos, rows), Chosen(photos, columns))))
  return sheets.save_png(path, sheets.swap_sheet(photos, photos, made.reshape(len(photos), *photos.shape)))
