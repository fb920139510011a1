"""Curves of a training run, from its metrics.jsonl."""

from collections.abc import Mapping
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dgnet_jax.errors import UserError
from dgnet_jax.plots.charts import save_figure
from dgnet_jax.utils.bounded_files import parse_json, read_text
from dgnet_jax.utils.text import printable, shortened

if TYPE_CHECKING:
  from matplotlib.axes import Axes

# Panels and the losses in them, as named in metrics.jsonl. Losses that are not listed are drawn in the panel `other`.
PANELS: Mapping[str, tuple[str, ...]] = {
  'reconstruction': (
    *('self_reconstruction', 'positive_reconstruction', 'cycle', 'fetched'),
    *('structure_code', 'appearance_code'),
  ),
  'dissimilarity': ('dissimilarity', 'cycle_dissimilarity'),
  'matching': ('matching',),
  'mask': ('erasure', 'mask_area'),
  'adversarial': ('adversarial', 'discriminator'),
  'gradient penalty': ('r1',),
  'identity': ('identity', 'positive_identity', 'cross_identity', 'fine_identity'),
  'teaching': ('primary_teaching', 'fine_teaching'),
  'total': ('total',),
}
METRICS = 'metrics.jsonl'  # in a work folder
EVALUATED = ('validation', 'test')  # splits that may be ranked in training; the first decides which step is best
RANKED = ('mAP', 'rank_1', 'rank_5', 'rank_10')  # measured, as fractions
KINDS = ('loss/', 'weight/', 'rate/', *(f'{split}/' for split in EVALUATED))
OTHER_PANEL = 'other'
SMOOTHING_WINDOWS = 50  # the smoothed curves average over this fraction of the run
COLUMNS = 3
MAX_LABEL = 40  # characters
PANEL_INCHES = (4.6, 3.2)
FORMATS = ('.png', '.svg', '.pdf')
LINE_STYLES = ('-', '--', ':', '-.')  # of weights and learning rates, several of which are often equal

Values = npt.NDArray[np.float64]
Series = Mapping[str, tuple[npt.NDArray[np.int64], Values]]


def read_metrics(path: str | os.PathLike[str]) -> Series:
  """Reads the metrics of DG-Net from metrics.jsonl.

  Returns:
    Name -> steps i64[n], ascending, and values f64[n]; values that were not finite are NaN.

  Raises:
    UserError: the file does not exist, cannot be read or has no metrics.
  """
  values_by_step = read_numbers(path)
  if not any(name.startswith(KINDS) for name in values_by_step):
    raise UserError(f'{path}: no metrics of DG-Net in it')
  return {
    name: (np.array(sorted(values)), np.array([values[step] for step in sorted(values)]))
    for name, values in values_by_step.items()
  }


def read_numbers(path: str | os.PathLike[str]) -> dict[str, dict[int, float]]:
  """Reads metrics.jsonl: name -> step -> value, NaN where it was not finite.

  Lines that are not metrics are skipped: a killed run may leave an incomplete last line.

  Raises:
    UserError: the file does not exist or cannot be read.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path}: no such file; training writes it')
  try:
    lines = read_text(path, errors='replace').splitlines()
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
  values_by_step: dict[str, dict[int, float]] = {}
  for line in lines:
    try:
      numbers = parse_json(line)
      step = int(numbers.pop('step'))
      values = {name: np.nan if value is None else float(value) for name, value in numbers.items()}
      np.int64(step)
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError):
      continue
    for name, value in values.items():
      values_by_step.setdefault(name, {})[step] = value
  return values_by_step


def panels_of(series: Series) -> dict[str, list[str]]:
  """Maps panels to the names shown in them; no empty panels.

  These are rankings during training, losses in groups, weights and learning rates.
  """
  panels = {f'ranking, {split} split': [f'{split}/{name}' for name in RANKED] for split in EVALUATED}
  panels = {panel: [name for name in names if name in series] for panel, names in panels.items()}
  losses = [name for name in series if name.startswith('loss/')]
  panels |= {panel: [f'loss/{name}' for name in names if f'loss/{name}' in losses] for panel, names in PANELS.items()}
  listed = {name for names in panels.values() for name in names}
  panels[OTHER_PANEL] = [name for name in losses if name not in listed]
  panels['loss weights'] = [name for name in series if name.startswith('weight/')]
  panels['learning rates'] = [name for name in series if name.startswith('rate/')]
  return {panel: names for panel, names in panels.items() if names}


def smoothed(values: Values) -> Values:
  """Computes running means f64[n] over a fiftieth of the curve, ignoring NaN; the windows are shorter at its ends."""
  half = len(values) // SMOOTHING_WINDOWS // 2
  is_finite = np.isfinite(values)
  sums, counts = (np.concatenate([[0], np.cumsum(x)]) for x in (np.where(is_finite, values, 0), is_finite))
  low = np.maximum(np.arange(len(values)) - half, 0)
  high = np.minimum(np.arange(len(values)) + half + 1, len(values))
  count = counts[high] - counts[low]
  means: Values = np.where(count > 0, (sums[high] - sums[low]) / np.maximum(count, 1), np.nan)
  return means


def draw_curves(series: Series, path: str | os.PathLike[str], title: str) -> pathlib.Path:
  """Draws all curves: losses smoothed, over the measured values.

  Args:
    series: from `read_metrics`.
    path: the file to write, in one of `FORMATS`.
    title: title of the figure.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure  # late: importing it takes a second

  panels = panels_of(series)
  rows = -(-len(panels) // COLUMNS)
  figure = Figure(figsize=(COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1]), layout='constrained')
  figure.suptitle(printable(title), parse_math=False)  # the name of a folder may have two dollar signs
  axes = figure.subplots(rows, COLUMNS, squeeze=False).reshape(-1)
  first, last = (edge(edge(steps) for steps, _ in series.values()) for edge in (min, max))
  for axis, (panel, names) in zip(axes, panels.items(), strict=False):
    _draw_panel(axis, panel, {name: series[name] for name in names})
    axis.set_xlim(first, max(last, first + 1))
  for axis in axes[len(panels) :]:
    axis.set_visible(False)
  return save_figure(figure, path)


def _draw_panel(axis: 'Axes', title: str, series: Series) -> None:
  """Draws the curves of one panel: all losses, or all weights or rates."""
  from matplotlib.ticker import EngFormatter

  for number, (name, (steps, values)) in enumerate(series.items()):
    color, style = f'C{number}', '-'
    label = shortened(printable(name.split('/', 1)[1].replace('_', ' ')), MAX_LABEL)
    if name.startswith('loss/'):
      axis.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
      values = smoothed(values)
    elif name.startswith(EVALUATED):
      values, style = 100 * values, '.-'
    else:
      style = LINE_STYLES[number % len(LINE_STYLES)]
    axis.plot(steps, values, style, color=color, linewidth=1.5, label=label)
  axis.set_title(title, loc='left', fontsize='medium')
  axis.set_xlabel('step')
  axis.xaxis.set_major_formatter(EngFormatter(sep=''))
  axis.grid(alpha=0.3)
  if title.startswith('ranking'):
    axis.set_ylabel('%')
  if title == 'learning rates':
    axis.set_yscale('log')
  for text in axis.legend(fontsize='small', frameon=False).get_texts():
    text.set_parse_math(False)
