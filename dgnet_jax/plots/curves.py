"""The course of a training run as curves, from its metrics.jsonl."""

from collections.abc import Mapping
import json
import os
import pathlib

import numpy as np

from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import whole_file

# Panels and what belongs in them, by the names of metrics.jsonl; a loss that is in none of them gets the panel `other`.
PANELS: Mapping[str, tuple[str, ...]] = {
  'reconstruction': ('self_reconstruction', 'positive_reconstruction', 'cycle', 'structure_code', 'appearance_code'),
  'adversarial': ('adversarial', 'discriminator'),
  'gradient penalty': ('r1',),
  'identity': ('identity', 'positive_identity', 'cross_identity', 'fine_identity'),
  'teaching': ('primary_teaching', 'fine_teaching'),
  'total': ('total',),
}
LEFT_OUT = 'other'
SHOWN_WINDOWS = 50  # points of a smoothed curve are means over this share of the run
COLUMNS = 3
PANEL_INCHES = (4.6, 3.2)
FORMS = ('.png', '.svg', '.pdf')
DASHES = ('-', '--', ':', '-.')  # of weights and rates, of which several are often the same

Series = Mapping[str, tuple[np.ndarray, np.ndarray]]


def read_metrics(path: str | os.PathLike[str]) -> Series:
  """Reads metrics.jsonl.

  Returns:
    Name to steps i64[n] and values f64[n], ascending; what was not finite is NaN. A half line at the end is left out.

  Raises:
    UserError: there is no such file, or no numbers in it.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path}: no such file; training writes it')
  found: dict[str, dict[int, float]] = {}
  for line in path.read_text(encoding='utf-8').splitlines():
    try:
      numbers = json.loads(line)
      step = int(numbers.pop('step'))
    except (ValueError, KeyError, AttributeError, TypeError):
      continue
    for name, value in numbers.items():
      found.setdefault(name, {})[step] = np.nan if value is None else float(value)
  if not found:
    raise UserError(f'{path}: no metrics in it')
  return {name: (np.array(sorted(by)), np.array([by[step] for step in sorted(by)])) for name, by in found.items()}


def panels_of(series: Series) -> dict[str, list[str]]:
  """Panel to the names shown in it: the losses in groups, then weights and learning rates; empty ones are left out."""
  losses = [name for name in series if name.startswith('loss/')]
  panels = {panel: [f'loss/{name}' for name in names if f'loss/{name}' in losses] for panel, names in PANELS.items()}
  shown = {name for names in panels.values() for name in names}
  panels[LEFT_OUT] = [name for name in losses if name not in shown]
  panels['loss weights'] = [name for name in series if name.startswith('weight/')]
  panels['learning rates'] = [name for name in series if name.startswith('rate/')]
  return {panel: names for panel, names in panels.items() if names}


def smoothed(values: np.ndarray) -> np.ndarray:
  """Running means f64[n] over a fiftieth of the curve, NaN left out; shorter windows at its ends."""
  half = len(values) // SHOWN_WINDOWS // 2
  there = np.isfinite(values)
  sums, counts = (np.concatenate([[0], np.cumsum(x)]) for x in (np.where(there, values, 0), there))
  low = np.maximum(np.arange(len(values)) - half, 0)
  high = np.minimum(np.arange(len(values)) + half + 1, len(values))
  count = counts[high] - counts[low]
  return np.where(count > 0, (sums[high] - sums[low]) / np.maximum(count, 1), np.nan)


def draw_curves(series: Series, path: str | os.PathLike[str], title: str) -> pathlib.Path:
  """Writes a figure of all curves: the smoothed ones over what was measured.

  Args:
    series: of `read_metrics`.
    path: of a .png, .svg or .pdf.
    title: of the figure.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure  # late: it takes a second
  from matplotlib.ticker import EngFormatter

  path, panels = pathlib.Path(path), panels_of(series)
  rows = -(-len(panels) // COLUMNS)
  figure = Figure(figsize=(COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1]), layout='constrained')
  figure.suptitle(title)
  axes = figure.subplots(rows, COLUMNS, squeeze=False).reshape(-1)
  first, last = (edge(edge(steps) for steps, _ in series.values()) for edge in (min, max))
  for axis, (panel, names) in zip(axes, panels.items(), strict=False):
    is_loss = names[0].startswith('loss/')
    for number, name in enumerate(names):
      steps, values = series[name]
      label, color = name.split('/', 1)[1].replace('_', ' '), f'C{number}'
      if is_loss:
        axis.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
      style = '-' if is_loss else DASHES[number % len(DASHES)]
      axis.plot(steps, smoothed(values) if is_loss else values, style, color=color, linewidth=1.5, label=label)
    axis.set_title(panel, loc='left', fontsize='medium')
    axis.set_xlabel('step')
    axis.set_xlim(first, max(last, first + 1))
    axis.xaxis.set_major_formatter(EngFormatter(sep=''))
    axis.grid(alpha=0.3)
    if panel == 'learning rates':
      axis.set_yscale('log')
    axis.legend(fontsize='small', frameon=False)
  for axis in axes[len(panels) :]:
    axis.set_visible(False)
  with whole_file(path) as aside:
    figure.savefig(aside, format=path.suffix[1:].lower(), dpi=150)
  return path
