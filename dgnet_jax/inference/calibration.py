"""The scores from which on two images are taken to show one person: `calibration.json` in a run's work folder."""

from collections.abc import Callable
import dataclasses
import functools
import logging
import math
import pathlib
from typing import Any, NamedTuple

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, read_json

logger = logging.getLogger(__name__)

CALIBRATION = 'calibration.json'
FORMAT = 1


class Threshold(NamedTuple):
  """A false-positive rate, and the lowest score that is accepted for it."""

  false_positive_rate: float
  score: float


@dataclasses.dataclass(frozen=True)
class Calibration:
  """What searching needs of `calibration.json`.

  Attributes:
    networks: digest of the parameters that embed.
    step: step of their checkpoint.
    alpha: weight of the fine-grained half; None without halves.
    thresholds: at least one, in the order in which they were asked for.
  """

  networks: str
  step: int
  alpha: float | None
  thresholds: tuple[Threshold, ...]


def alpha_in_use(config: Config, alpha: float | None = None) -> float | None:
  """Returns the weight of the fine-grained half, by default the run's; None if the embedding has no halves."""
  if config.reid.style != 'AB':
    return None
  return config.evaluation.alpha if alpha is None else alpha


def read_calibration(workdir: pathlib.Path) -> Calibration | None:
  """Reads the calibration of a run; None if there is none.

  Raises:
    UserError: it is damaged.
  """
  path = workdir / CALIBRATION
  if workdir.is_file() or not path.exists():  # a model file has none
    return None
  try:
    values: Any = read_json(path, MAX_DESCRIPTION_BYTES)
    if not isinstance(values, dict) or values.get('format') != FORMAT:
      raise ValueError(f'not a calibration of format {FORMAT}')
    thresholds = tuple(
      Threshold(_finite(row['false_positive_rate']), _finite(row['score'])) for row in values['thresholds']
    )
    alpha = None if values['alpha'] is None else _finite(values['alpha'])
    if not thresholds or not isinstance(values['networks'], str) or type(values['step']) is not int:
      raise ValueError('a value is missing or of the wrong kind')
    return Calibration(values['networks'], values['step'], alpha, thresholds)
  except (OSError, ValueError, TypeError, KeyError) as error:
    reason = f'{error} is missing' if isinstance(error, KeyError) else error
    raise UserError(f'{path}: cannot be read ({reason}); delete it, and run `dgnet calibrate` again') from error


def _finite(value: Any) -> float:
  if type(value) not in (int, float) or not math.isfinite(value):
    raise ValueError('not a finite number')
  return float(value)


@functools.cache
def _warn_once(message: str) -> None:
  """Warns, unless it has done so: a search asks for the threshold more than once."""
  logger.warning(message)


def threshold_of(
  workdir: pathlib.Path,
  config: Config,
  networks: Callable[[], str],
  alpha: float | None = None,
  false_positive_rate: float | None = None,
) -> float | None:
  """Returns the lowest score of images of one person.

  Args:
    workdir: the run's work folder.
    config: the run's config.
    networks: returns the digest of the parameters that embed.
    alpha: weight of the fine-grained half; by default the run's.
    false_positive_rate: a calibrated rate; by default the first.

  Returns:
    The score; None if the run was not calibrated, or, with a warning, if it was with other networks or another alpha.

  Raises:
    UserError: the calibration is damaged or missing, or does not have the rate that is asked for.
  """
  calibration = read_calibration(workdir)
  if calibration is None:
    if false_positive_rate is not None:
      raise UserError(f'{workdir}: is not calibrated, so that --fpr has no threshold; run `dgnet calibrate` on its run')
    return None
  alpha = alpha_in_use(config, alpha)
  if (calibration.networks, calibration.alpha) != (networks(), alpha):
    _warn_once(
      f'{workdir / CALIBRATION}: of step {calibration.step} with alpha {calibration.alpha}, and not of this checkpoint '
      f'with alpha {alpha}, so no match is marked as the same person; run `dgnet calibrate` again'
    )
    return None
  if false_positive_rate is None:
    return calibration.thresholds[0].score
  for threshold in calibration.thresholds:
    if math.isclose(threshold.false_positive_rate, false_positive_rate, rel_tol=1e-9):
      return threshold.score
  known = ', '.join(f'{threshold.false_positive_rate:g}' for threshold in calibration.thresholds)
  raise UserError(f'{workdir / CALIBRATION}: has the false-positive rates {known}, not {false_positive_rate:g}')
