"""Charts of evaluation results, as PNG files."""

from collections.abc import Mapping, Sequence
import io
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.text import printable

if TYPE_CHECKING:
  from matplotlib.figure import Figure

DPI = 150
MAX_MATRIX_INCHES = 12.0
MAX_NUMBERED = 26  # rows and columns of a matrix of this size whose cells have room for numbers
NAME_LENGTH = 14  # characters of an identity or a camera on a chart
# Okabe and Ito's colours without black and yellow, which is faint on white: distinct with any colour vision.
BLUE, ORANGE, GREEN, PINK, SKY, RED = '#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00'
SAME, OTHER = BLUE, ORANGE  # people


def save_figure(figure: 'Figure', path: str | os.PathLike[str]) -> pathlib.Path:
  """Writes a figure in the format of the path's suffix, completely or not at all; returns the path."""
  path = pathlib.Path(path)
  file = io.BytesIO()  # whoever writes its content to the disk says if it is full; PIL does not
  figure.savefig(file, format=path.suffix[1:].lower(), dpi=DPI)
  with atomic_file(path) as temporary:
    temporary.write_bytes(file.getvalue())
  return path


def line_chart(
  path: str | os.PathLike[str],
  curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  *,
  x_label: str,
  y_label: str,
  log_x: bool = False,
  marker: tuple[float, str] | None = None,
) -> pathlib.Path:
  """Draws curves with a legend.

  Args:
    path: the PNG file to write.
    curves: label -> x and y values.
    x_label: label of the x axis.
    y_label: label of the y axis.
    log_x: makes the x axis logarithmic.
    marker: a position on the x axis to mark by a vertical line, and its label.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure  # late: importing it takes a second

  figure = Figure(figsize=(5, 3.5), layout='constrained')
  axes = figure.add_subplot(xlabel=x_label, ylabel=y_label, xscale='log' if log_x else 'linear')
  for label, (x, y) in curves.items():
    axes.plot(x, y, 'o-', markersize=3, label=label)
  if marker:
    axes.axvline(marker[0], color='0.6', linestyle='--', label=marker[1])
  axes.legend()
  axes.grid(alpha=0.3)
  return save_figure(figure, path)


def dot_chart(path: str | os.PathLike[str], panels: Mapping[str, Mapping[str, Sequence[float]]]) -> pathlib.Path:
  """Draws a row per label with a dot for each value and a line at their mean.

  Args:
    path: the PNG file to write.
    panels: x label of each panel -> row label -> values. All panels have the same rows.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure  # late: importing it takes a second

  labels = list(next(iter(panels.values())))
  figure = Figure(figsize=(4.5 * len(panels), 1 + 0.36 * len(labels)), layout='constrained')
  all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  for axes, (x_label, rows) in zip(all_axes, panels.items(), strict=True):
    for place, values in enumerate(rows.values()):
      axes.plot(values, np.full(len(values), place), 'o', alpha=0.6)
      axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color='black')
    axes.set(xlabel=x_label, yticks=range(len(labels)), yticklabels=labels)
    axes.grid(axis='x', alpha=0.3)
  all_axes[0].invert_yaxis()
  return save_figure(figure, path)


def short_name(name: str) -> str:
  """Returns the name of an identity or a camera as it fits on a chart."""
  shown = printable(name)
  return shown if len(shown) <= NAME_LENGTH else f'{shown[: NAME_LENGTH - 1]}\u2026'


def matrix_chart(
  path: str | os.PathLike[str],
  panels: Mapping[str, np.ndarray],
  *,
  rows: Sequence[str],
  columns: Sequence[str],
  row_label: str,
  column_label: str,
) -> pathlib.Path:
  """Draws matrices of percentages side by side, dark where they are low.

  Args:
    path: the PNG file to write.
    panels: title -> f64[R, C] in percent; NaN leaves a cell empty.
    rows: names of the R rows.
    columns: names of the C columns.
    row_label: what the rows are.
    column_label: what the columns are.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure  # late: importing it takes a second

  width = np.clip(0.5 * len(columns) + 1.2, 3.2, MAX_MATRIX_INCHES)
  height = np.clip(0.42 * len(rows) + 1.4, 2.8, MAX_MATRIX_INCHES)
  figure = Figure(figsize=(width * len(panels) + 0.6, height), layout='constrained')
  all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  known = np.concatenate([values[np.isfinite(values)] for values in panels.values()])
  low = 10 * min(9, int(known.min(initial=100)) // 10)  # so that differences between high values are visible, too
  for axes, (title, values) in zip(all_axes, panels.items(), strict=True):
    image = axes.imshow(values, cmap='cividis', vmin=low, vmax=100, aspect='auto')
    for (row, column), value in np.ndenumerate(values if max(values.shape) <= MAX_NUMBERED else np.zeros((0, 0))):
      text = '\u2013' if np.isnan(value) else f'{value:.0f}'
      color = 'white' if value < (low + 100) / 2 else 'black'
      axes.text(column, row, text, ha='center', va='center', color=color, fontsize='small')
    axes.set_title(title, loc='left', fontsize='medium')
    axes.set_xlabel(column_label)
    axes.set_xticks(range(len(columns)), [short_name(name) for name in columns], parse_math=False)
    axes.set_yticks(range(len(rows)), [short_name(name) for name in rows], parse_math=False)
    if max(map(len, columns)) > 3:
      axes.tick_params(axis='x', labelrotation=90)
  all_axes[0].set_ylabel(row_label)
  figure.colorbar(image, ax=all_axes, label='%', fraction=0.05)
  return save_figure(figure, path)


def histogram_chart(
  path: str | os.PathLike[str],
  edges: np.ndarray,
  counts: Mapping[str, np.ndarray],
  markers: Sequence[tuple[float, str]],
  *,
  x_label: str,
) -> pathlib.Path:
  """Draws two histograms, each as shares of its own sum, on a linear and on a logarithmic axis.

  Args:
    path: the PNG file to write.
    edges: f64[N + 1], of the bins.
    counts: label -> i64[N]: first of the same people, then of others.
    markers: positions on the x axis to mark by vertical lines, and their labels.
    x_label: label of the x axis.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure  # late: importing it takes a second

  figure = Figure(figsize=(10, 4), layout='constrained')
  for axes, scale in zip(figure.subplots(1, 2), ('linear', 'log'), strict=True):
    for (label, count), color in zip(counts.items(), (SAME, OTHER), strict=True):
      axes.stairs(100 * count / max(1, count.sum()), edges, fill=True, color=color, alpha=0.35)
      axes.stairs(100 * count / max(1, count.sum()), edges, color=color, linewidth=1.5, label=label)
    for (place, label), style in zip(markers, ('--', ':', '-.'), strict=False):
      axes.axvline(place, color='black', linestyle=style, linewidth=1.2, label=label)
    axes.set(xlabel=x_label, ylabel=f'% of the pairs{", logarithmic" if scale == "log" else ""}', yscale=scale)
    axes.grid(alpha=0.3)
  handles, labels = axes.get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', ncols=2, frameon=False)
  return save_figure(figure, path)
