"""Calibrates the score from which on two images are taken to show one person, and keeps it with the run."""

from collections.abc import Sequence
import dataclasses
import logging
import os
from typing import Any

from dgnet_jax.api import Model
from dgnet_jax.config.loading import SAVED_CONFIG
from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import TEST_SPLITS, open_dataset
from dgnet_jax.data.matches import require_matches
from dgnet_jax.data.remote import is_remote
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.calibration import ROUNDS, Interval, calibrate, is_visible
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.inference.calibration import CALIBRATION, FORMAT, alpha_in_use
from dgnet_jax.inference.results import is_direct_transfer
from dgnet_jax.utils.atomic_files import write_json

logger = logging.getLogger(__name__)


def calibrate_run(
  model: Model, config: Config, *, false_positive_rates: Sequence[float], alpha: float | None = None
) -> dict[str, Any]:
  """Finds the thresholds on the query and gallery images of a data set, and writes `<workdir>/calibration.json`.

  On the run's own data these are its held-out identities (`data.val_identities`), if it has some, else its test split.

  Args:
    model: the trained networks.
    config: names the data; those of the run, or others.
    false_positive_rates: the first is used unless another is asked for.
    alpha: as for `Model.rank`.

  Returns:
    The contents of calibration.json.

  Raises:
    UserError: the data set is missing, or has no pairs of one person or of two people.
  """
  has_config = (model.workdir / SAVED_CONFIG).exists()
  is_own = config.data == model.config.data or (has_config and not is_direct_transfer(config, model.workdir))
  held_out = model.config.data.val_identities if is_own else 0
  data = dataclasses.replace(config.data, val_identities=held_out)  # whom the run was not trained on
  opened = open_dataset(data, model.workdir, needs=('train',) if held_out else TEST_SPLITS)
  index = opened.validation or opened
  require_matches(index)
  is_test_split = is_own and not held_out
  if is_test_split:
    logger.warning(
      "calibrating on the run's own test images: report scores on other images, name other data (--config.data.root), "
      'or train with data.val_identities'
    )
  query, gallery = (
    Embeddings(model.embed_files(split.paths, alpha=alpha, label=f'embedding {name}'), split.identity, split.camera)
    for name, split in (('query', index.query), ('gallery', index.gallery))
  )
  try:
    result = calibrate(query, gallery, false_positive_rates=false_positive_rates)
  except ValueError as error:
    raise UserError(f'{index.root}: {error}') from error
  for rate in false_positive_rates:
    if not is_visible(rate, result.num_negative_pairs):
      logger.warning(
        f'a false-positive rate of {rate:g} cannot be seen in {result.num_negative_pairs} pairs of two people: its '
        'threshold is above all of them, and may have to be higher'
      )
  values = {
    'format': FORMAT,
    'step': model.step,
    'networks': model.networks_digest,
    'alpha': alpha_in_use(model.config, alpha),
    'data': {
      'layout': index.name,
      'root': config.data.root if is_remote(config.data.root) else os.path.abspath(index.root),
      'splits': ['validation'] if held_out else list(TEST_SPLITS),
      'test_split_of_run': is_test_split,
    },
    'num_positive_pairs': result.num_positive_pairs,
    'num_negative_pairs': result.num_negative_pairs,
    'num_identities': result.num_identities,
    'bootstrap': {'rounds': ROUNDS, 'over': 'identities'},
    'thresholds': [dataclasses.asdict(threshold) for threshold in result.thresholds],
  }
  path = model.workdir / CALIBRATION
  if path.exists():
    logger.info(f'{path}: replaces the calibration that was there')
  write_json(path, values)
  logger.info(f'calibration: {path}')
  return values


def calibration_table(values: dict[str, Any]) -> str:
  """Formats the contents of calibration.json as text."""
  lines = [f'{"FPR":>10}{"score":>9}  {"95 % interval":<18}{"TPR":>8}  95 % interval']
  for row in values['thresholds']:
    score, rate = _between(row['score_interval'], '{:.4f}'), _between(row['true_positive_rate_interval'], '{:.2%}')
    lines.append(
      f'{row["false_positive_rate"]:>10g}{row["score"]:>9.4f}  {score:<18}{row["true_positive_rate"]:>8.2%}  {rate}'
    )
  pairs = values['num_positive_pairs'], values['num_negative_pairs'], values['num_identities']
  lines.append('{:,} pairs of one person, {:,} of two people; {:,} people'.format(*pairs))
  return '\n'.join(lines)


def _between(interval: Interval, pattern: str) -> str:
  """Formats an interval, whose ends may be unknown."""
  low, high = interval
  if high is None:
    return f'at least {pattern.format(low)}'
  return f'at most {pattern.format(high)}' if low is None else f'{pattern.format(low)} to {pattern.format(high)}'
