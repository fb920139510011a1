"""From a config to a DatasetIndex; the built-in pedestrians are rendered on first use."""

from collections.abc import Callable
import pathlib
from typing import Any

from dgnet_jax.data.images import verify_images
from dgnet_jax.data.index import DatasetIndex, read_dataset
from dgnet_jax.data.synthetic import write_dataset


def dataset_root(config: Any, workdir: str | pathlib.Path) -> pathlib.Path:
  """The folder of the data: config.data.root, or a folder in `workdir` for the built-in pedestrians."""
  return pathlib.Path(config.data.root) if config.data.root else pathlib.Path(workdir) / 'synthetic_data'


def open_dataset(
  config: Any, workdir: str | pathlib.Path, *, verify: bool = False, log: Callable[[str], None] = print
) -> DatasetIndex:
  """Reads the index of the configured data set.

  Args:
    config: validated.
    workdir: the run's folder.
    verify: decode every picture once, so that a damaged one is named before training starts.
    log: takes lines for a person.

  Raises:
    UserError: the data set is missing, empty or damaged; names the folder or file.
  """
  root = dataset_root(config, workdir)
  if config.data.layout == 'synthetic':
    write_dataset(root, config.data.synthetic, log=log)
  index = read_dataset(config.data, root, log=log)
  if verify:
    verify_images(index, config.data.decode_threads, log=log)
  log(f'data: {root}')
  return index
