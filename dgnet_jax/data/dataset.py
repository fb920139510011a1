"""From a config to a DatasetIndex. The built-in pedestrians are rendered on first use."""

from collections.abc import Sequence
import logging
import pathlib

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.holdout import hold_out
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.layouts import LAYOUTS
from dgnet_jax.data.matches import require_matches, why_nothing_matches
from dgnet_jax.data.overlaps import quick_problems
from dgnet_jax.data.registry import read_dataset
from dgnet_jax.data.remote import is_remote, local_copy
from dgnet_jax.data.synthetic.dataset import write_dataset
from dgnet_jax.data.verification import verify_images
from dgnet_jax.errors import MissingSplit, UserError
from dgnet_jax.utils.paths import local_path

logger = logging.getLogger(__name__)


TEST_SPLITS = ('query', 'gallery')  # required by an evaluation
# What an evaluation needs, by `evaluation.split`; held-out identities come from train.
RANKED_SPLITS = {'test': TEST_SPLITS, 'validation': ('train',)}


def dataset_root(data_config: DataConfig, workdir: str | pathlib.Path) -> pathlib.Path:
  """Returns the folder of the data set.

  This is `data_config.root`, or its copy in `workdir` if it is on object storage. The default for the built-in
  pedestrians is a folder in `workdir`.
  """
  if is_remote(data_config.root):
    return local_copy(data_config.root, pathlib.Path(workdir) / 'data_cache')
  return local_path(data_config.root) if data_config.root else pathlib.Path(workdir) / 'synthetic_data'


def _missing(index: DatasetIndex, needs: Sequence[str]) -> str:
  """Describes the required splits that are missing and where they should be; '' if there are none."""
  folders = LAYOUTS[index.name].folders
  missing = [
    f'{split} (folder {" or ".join(folders[split])})' if split in folders else split
    for split in dict.fromkeys(needs)
    if not len(index.splits[split])
  ]
  return f'{index.root} has no images of {", ".join(missing)}' if missing else ''


def open_dataset(
  data_config: DataConfig, workdir: str | pathlib.Path, *, needs: Sequence[str] = ('train',)
) -> DatasetIndex:
  """Reads the index of the configured data set.

  If the training split is needed, identities that are held out for validation are not in it, but in `validation`.

  Args:
    data_config: section `data` of a valid config.
    workdir: folder of the run.
    needs: splits that must exist.

  Raises:
    UserError: the data set is missing or empty, has only one identity to train on, or too few to hold some out.
    MissingSplit: the data set is valid, but a required split is missing.
  """
  root = dataset_root(data_config, workdir)
  if data_config.layout == 'synthetic':
    write_dataset(root, data_config.synthetic)
  index = read_dataset(data_config, root)
  missing = _missing(index, needs)
  if missing:
    raise MissingSplit(missing)
  if 'train' in needs and data_config.val_identities:
    index = hold_out(index, data_config.val_identities)
  if 'train' in needs and index.num_identities < 2:
    raise UserError(f'{index.root}: only one identity in the training split; re-identification needs at least two')
  no_evaluation = _missing(index, TEST_SPLITS) or why_nothing_matches(index) if 'train' in needs else ''
  if no_evaluation and index.validation:
    logger.warning(
      f'only the held-out identities can be evaluated (--config.evaluation.split=validation): {no_evaluation}'
    )
  elif no_evaluation:
    logger.warning(f'the run can be trained but not evaluated: {no_evaluation}')
  for problem in quick_problems(index) if 'train' in needs else ():
    logger.warning(f'{index.root}: {problem}')
  logger.info(f'data: {root}')
  return index


def index_to_rank(index: DatasetIndex, split: str) -> DatasetIndex:
  """Returns the index whose query and gallery are those of a split.

  Args:
    index: with the splits that `RANKED_SPLITS` names.
    split: test or validation.

  Raises:
    NoMatches: no query has a match.
  """
  chosen = index.validation if split == 'validation' else index
  assert chosen is not None  # a rule of the config
  require_matches(chosen)
  return chosen


def split_to_rank_in_training(index: DatasetIndex) -> tuple[str, DatasetIndex]:
  """Chooses what is ranked while DG-Net trains: the validation split if there is one, else the test split.

  Returns:
    Its name in `plots.curves.EVALUATED`, and the index with its query and gallery.

  Raises:
    UserError: there is neither, or no query has a match.
  """
  if index.validation:
    return 'validation', index.validation
  problem = _missing(index, TEST_SPLITS) or why_nothing_matches(index)
  if problem:
    raise UserError(
      f'evaluation.every_steps: {problem}; hold out training identities with data.val_identities, or set it to 0'
    )
  return 'test', index


def verify_dataset(index: DatasetIndex, data_config: DataConfig, workdir: str | pathlib.Path) -> None:
  """Decodes the images that no earlier start of this run has decoded, so that damaged ones do not stop it later.

  With the loaders memory and device the training images are left to the source, which decodes them anyway.

  Args:
    index: of the data set.
    data_config: section `data` of the config.
    workdir: folder of the run; keeps the list of verified images.

  Raises:
    UserError: images are unreadable; names them.
  """
  decoded_by_source = {'train'} if data_config.loader in ('memory', 'device') else set()
  splits = [split for name, split in index.splits.items() if name not in decoded_by_source]
  splits += [index.validation.query, index.validation.gallery] if index.validation else []
  paths = [path for split in splits for path in split.paths]
  cache_file = pathlib.Path(workdir) / 'verified_images.json'
  verify_images(paths, threads=data_config.decode_threads, cache_file=cache_file)
