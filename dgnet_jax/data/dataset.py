"""From a config to a DatasetIndex; the built-in pedestrians are rendered on first use."""

from collections.abc import Sequence
import logging
import pathlib

from dgnet_jax.config.schema import Config
from dgnet_jax.data.images import verify_images
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.layouts import LAYOUTS
from dgnet_jax.data.registry import read_dataset
from dgnet_jax.data.remote import is_remote, local_copy
from dgnet_jax.data.synthetic.dataset import write_dataset
from dgnet_jax.errors import MissingSplit, UserError

logger = logging.getLogger(__name__)


TEST = ('query', 'gallery')  # the splits that an evaluation needs


def dataset_root(config: Config, workdir: str | pathlib.Path) -> pathlib.Path:
  """The folder of the data: config.data.root (a copy of it in `workdir`, if it is on object storage), or a folder in
  `workdir` for the built-in pedestrians.
  """
  if is_remote(config.data.root):
    return local_copy(config.data.root, pathlib.Path(workdir) / 'data_cache')
  return pathlib.Path(config.data.root) if config.data.root else pathlib.Path(workdir) / 'synthetic_data'


def _missing(index: DatasetIndex, needs: Sequence[str]) -> str:
  """Which splits are missing and where they should be, or ''."""
  folders = LAYOUTS[index.name].folders
  missing = [
    f'{split} (folder {" or ".join(folders[split])})' if split in folders else split
    for split in needs
    if not len(index.splits[split])
  ]
  return f'{index.root} has no images of {", ".join(missing)}' if missing else ''


def open_dataset(
  config: Config, workdir: str | pathlib.Path, *, needs: Sequence[str] = ('train',), verify: bool = False
) -> DatasetIndex:
  """Reads the index of the configured data set.

  Args:
    config: validated.
    workdir: the run's folder.
    needs: splits that must be there.
    verify: decode every image once, so that a damaged one is named before training starts.

  Raises:
    UserError: the data set is missing, empty or damaged, or has one person only to train on; names the folder or file.
    MissingSplit: it is sound, but a split that is needed is not there.
  """
  root = dataset_root(config, workdir)
  if config.data.layout == 'synthetic':
    write_dataset(root, config.data.synthetic)
  index = read_dataset(config.data, root)
  missing = _missing(index, needs)
  if missing:
    raise MissingSplit(missing)
  if 'train' in needs and index.num_identities < 2:
    raise UserError(f'{index.root}: one person in the training split; telling people apart takes two')
  if 'train' in needs and _missing(index, TEST):
    logger.warning(f'{_missing(index, TEST)}: it can be trained on, not evaluated')
  if verify:
    verify_images(index, config.data.decode_threads)
  logger.info(f'data: {root}')
  return index
