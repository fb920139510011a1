"""From a config to a DatasetIndex; the built-in pedestrians are rendered on first use."""

from collections.abc import Callable, Sequence
import pathlib
from typing import Any

from dgnet_jax.config import MissingSplit, UserError
from dgnet_jax.data.images import verify_images
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.layouts import LAYOUTS
from dgnet_jax.data.read import read_dataset
from dgnet_jax.data.remote import is_remote, local_copy
from dgnet_jax.data.synthetic import write_dataset

TEST = ('query', 'gallery')  # the splits that an evaluation needs


def dataset_root(config: Any, workdir: str | pathlib.Path, *, log: Callable[[str], None] = print) -> pathlib.Path:
  """The folder of the data: config.data.root (a copy of it in `workdir`, if it is on object storage), or a folder in
  `workdir` for the built-in pedestrians.
  """
  if is_remote(config.data.root):
    return local_copy(config.data.root, pathlib.Path(workdir) / 'data_cache', log=log)
  return pathlib.Path(config.data.root) if config.data.root else pathlib.Path(workdir) / 'synthetic_data'


def _missing(index: DatasetIndex, needs: Sequence[str]) -> str:
  """Which splits are missing and where they should be, or ''."""
  folders = LAYOUTS[index.name].folders
  missing = [
    f'{split} (folder {" or ".join(folders[split])})' if split in folders else split
    for split in needs
    if not len(index.splits[split])
  ]
  return f'{index.root} has no pictures of {", ".join(missing)}' if missing else ''


def open_dataset(
  config: Any,
  workdir: str | pathlib.Path,
  *,
  needs: Sequence[str] = ('train',),
  verify: bool = False,
  log: Callable[[str], None] = print,
) -> DatasetIndex:
  """Reads the index of the configured data set.

  Args:
    config: validated.
    workdir: the run's folder.
    needs: splits that must be there.
    verify: decode every picture once, so that a damaged one is named before training starts.
    log: takes lines for a person.

  Raises:
    UserError: the data set is missing, empty or damaged, or has one person only to train on; names the folder or file.
    MissingSplit: it is sound, but a split that is needed is not there.
  """
  root = dataset_root(config, workdir, log=log)
  if config.data.layout == 'synthetic':
    write_dataset(root, config.data.synthetic, log=log)
  index = read_dataset(config.data, root, log=log)
  missing = _missing(index, needs)
  if missing:
    raise MissingSplit(missing)
  if 'train' in needs and index.num_identities < 2:
    raise UserError(f'{index.root}: one person in the training split; telling people apart takes two')
  if 'train' in needs and _missing(index, TEST):
    log(f'warning: {_missing(index, TEST)}: it can be trained on, not evaluated')
  if verify:
    verify_images(index, config.data.decode_threads, log=log)
  log(f'data: {root}')
  return index
