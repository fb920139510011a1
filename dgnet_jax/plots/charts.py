"""Charts of evaluation results, as PNG files."""

from collections.abc import Mapping, Sequence
import io
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from dgnet_jax.utils.atomic_files import atomic_file

if TYPE_CHECKING:
  from matplotlib.figure import Figure

DPI = 150


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
