"""The data that an evaluation ranks: opened, checked and described."""

import logging
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config.loading import SAVED_CONFIG, read_saved_fields
from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import RANKED_SPLITS, index_to_rank, open_dataset
from dgnet_jax.data.index import DISTRACTOR, JUNK, DatasetIndex, summarize
from dgnet_jax.data.matches import has_match
from dgnet_jax.data.overlaps import digests, identity_problems, image_problems, without_training
from dgnet_jax.errors import UserError
from dgnet_jax.inference.results import is_direct_transfer, settings_of
from dgnet_jax.training.data_record import comparable, read_record

logger = logging.getLogger(__name__)


def open_evaluated_data(config: Config, workdir: pathlib.Path) -> DatasetIndex:
  """Returns the index with the split to rank as query and gallery, and the images trained on as train.

  Raises:
    UserError: the data set is missing, or the run was trained on people of the validation split.
    NoMatches: no query has a match.
  """
  split = config.evaluation.split
  index = index_to_rank(open_dataset(config.data, workdir, needs=RANKED_SPLITS[split]), split)
  if is_direct_transfer(config, workdir):
    return without_training(index)
  if split == 'validation':
    _check_held_out(config, workdir, index)
  return index


def _check_held_out(config: Config, workdir: pathlib.Path, index: DatasetIndex) -> None:
  """Raises UserError if the run was trained on people that are to be ranked as held out."""
  record = read_record(workdir)
  known = {comparable(name) for name in record.identities} if record else set()
  names = [index.identity_names[identity] for identity in np.unique(index.query.identity).tolist()]
  trained_on = [name for name in names if comparable(name) in known]
  if not trained_on:
    return
  saved = workdir / SAVED_CONFIG
  held_out = read_saved_fields(saved)['data'].get('val_identities', 0) if saved.exists() else 0
  remedy = (
    f'set it to {held_out}, as in the run'
    if 0 < held_out < config.data.val_identities
    else 'the run held nobody out, so evaluate its test split (evaluation.split=test)'
  )
  raise UserError(
    f'data.val_identities={config.data.val_identities}: the run was trained on {len(trained_on)} of these '
    f'{len(names)} people ({summarize(trained_on)}), whom it would find too well; {remedy}'
  )


def describe_evaluation(config: Config, index: DatasetIndex, step: int) -> dict[str, Any]:
  """Returns what is evaluated, for results.json."""
  gallery = index.gallery.identity
  return {
    'step': step,
    'data': index.name,
    'root': index.root,
    'protocol': config.evaluation.protocol,
    'settings': settings_of(config.evaluation),
    'num_queries': len(index.query),
    'num_valid_queries': int(has_match(index.query, index.gallery).sum()),
    'num_gallery': len(index.gallery),
    'num_distractors': int((gallery == DISTRACTOR).sum()),
    'num_junk': int((gallery == JUNK).sum()),
    'num_multi_query': len(index.multi_query),
  }


def warn_about_invalid_queries(index: DatasetIndex, protocol: str) -> None:
  """Names queries without a match, and says how the protocol counts them."""
  invalid = np.flatnonzero(~has_match(index.query, index.gallery))
  if len(invalid):
    effect = 'counted as failures' if protocol == 'release' else 'left out'
    logger.warning(
      f'{len(invalid)} of {len(index.query)} queries have no match, a gallery image of the same identity by another '
      f'camera, and are {effect} (evaluation.protocol={protocol}): {summarize([index.query.paths[i] for i in invalid])}'
    )


def find_overlaps(index: DatasetIndex, threads: int) -> list[str]:
  """Returns and logs what makes scores wrong: people or images in two splits, and images of two identities."""
  logger.info('comparing the images of the splits')
  problems = [*identity_problems(index), *image_problems(index, digests(index, threads=threads))]
  for problem in problems:
    logger.warning(f'{index.root}: {problem}')
  return problems
