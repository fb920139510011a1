"""What comparisons over several seeds have in common: which runs are done, and tables and plots of their scores."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config.loading import SAVED_CONFIG, changed_fields
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.inference.results import read_results, settings_of
from dgnet_jax.plots.charts import dot_chart
from dgnet_jax.training.data_record import RECORD_FILE, TrainingData, data_changes, read_record

METRICS = {'rank_1': 'rank-1', 'mAP': 'mAP'}


def check_seeds(seeds: Sequence[int]) -> None:
  """Raises UserError if there are no seeds, or some repeat."""
  if not seeds or len(set(seeds)) < len(seeds):
    raise UserError(f'seeds {" ".join(map(str, seeds))}: give at least one, and each only once')


def check_same_data(data: TrainingData, workdir: pathlib.Path) -> None:
  """Raises UserError if a run beside `workdir` was on other data, so that a table would compare data, not methods."""
  for path in sorted(workdir.parent.glob(f'*/{RECORD_FILE}')):
    other = read_record(path.parent)
    changes = data_changes(other, data) if other is not None else []
    if changes:
      raise UserError(
        f'{path.parent} was trained on other data ({"; ".join(changes)}); restore them, or choose another folder, --out'
      )


def results_with(config: Config, workdir: pathlib.Path, path: pathlib.Path) -> dict[str, Any] | None:
  """Returns the results of a run, or None if it has none with the evaluation's settings of `config`.

  Args:
    config: of the run.
    workdir: its work folder.
    path: the file of its results.

  Raises:
    UserError: the run had other settings, so that a table would mix two experiments, or its results are damaged.
  """
  changes = [change for change in changed_fields(workdir / SAVED_CONFIG, config) if not change.startswith('log.')]
  if changes:
    raise UserError(f'{workdir} was run with other settings ({"; ".join(changes)}); choose another folder, --out')
  if not path.exists():
    return None
  results, settings = read_results(path), settings_of(config.evaluation)
  return results if results.get('settings', settings) == settings else None


def mean_and_deviation(values: Sequence[float], digits: int = 1, sign: str = '') -> str:
  """Formats the mean ± sample standard deviation."""
  deviation = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
  return f'{np.mean(values):{sign}.{digits}f}{deviation}'


def percent(values: Sequence[float], sign: str = '') -> str:
  """Formats the mean ± sample standard deviation of fractions."""
  return mean_and_deviation([100 * value for value in values], sign=sign)


def table_lines(title: str, headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
  """Returns the lines of a Markdown table."""
  lines = [f'| {title} | {" | ".join(headings)} |', '| --- ' * (len(headings) + 1) + '|']
  return lines + [f'| {name} | {" | ".join(texts)} |' for name, texts in rows.items()]


def plot_scores(scores: Mapping[str, Mapping[str, Sequence[float]]], path: pathlib.Path) -> None:
  """Draws scores, row -> metric -> a fraction for each seed, and their means as a PNG."""
  dot_chart(
    path,
    {
      f'{label}, %': {row: [100 * value for value in values[metric]] for row, values in scores.items()}
      for metric, label in METRICS.items()
    },
  )
