"""The sheet of cross images of people never trained on."""

import pathlib

import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.lazy_images import Chosen, ImageFiles
from dgnet_jax.inference.trained import Trained, one_image_each
from dgnet_jax.plots import sheets


def write_swap_sheet(config: Config, index: DatasetIndex, trained: Trained, path: pathlib.Path) -> pathlib.Path:
  """A sheet of test people in each other's clothes; on its diagonal everybody wears their own."""
  chosen = one_image_each(index.query, config.evaluation.num_swaps)
  images = ImageFiles([index.query.paths[i] for i in chosen], config.data.image_size_hw)[:]
  rows, columns = np.divmod(np.arange(len(images) ** 2), len(images))
  made = np.concatenate(list(trained.swap_images(Chosen(images, rows), Chosen(images, columns))))
  return sheets.save_png(path, sheets.swap_sheet(images, images, made.reshape(len(images), *images.shape)))
