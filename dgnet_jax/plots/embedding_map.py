"""A map of embeddings, coloured by identity and by camera, and with the images themselves."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dgnet_jax.plots.canvas import Pixels
from dgnet_jax.plots.charts import BLUE, GREEN, ORANGE, PINK, RED, SKY, save_figure, short_name
from dgnet_jax.utils.text import printable

if TYPE_CHECKING:
  from matplotlib.axes import Axes

COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
MARKERS = ('o', '^', 's', 'D', 'v', 'P')
MAX_GROUPS = len(COLORS) * len(MARKERS)  # that can be told apart
GREY = '0.8'
PANEL_INCHES = 6.0
THUMBNAIL_INCHES = 0.34  # height


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
  """A division of N images: title of the panel, names of the G groups, and i64[N], the group of each image or -1."""

  title: str
  names: Sequence[str]
  of_image: npt.NDArray[np.int64]


def draw_embedding_map(
  path: str | os.PathLike[str],
  places: npt.NDArray[np.floating],
  panels: Sequence[Groups],
  *,
  title: str,
  thumbnails: Pixels | None = None,
  thumbnail_places: npt.NDArray[np.floating] | None = None,
) -> pathlib.Path:
  """Draws a panel for each division of the images, with a colour and a marker for each group; the others are grey.

  Args:
    path: the PNG file to write.
    places: f[N, 2].
    panels: divisions of the N images into at most `MAX_GROUPS` groups.
    title: of the figure.
    thumbnails: u8[T, H, W, 3], images to show in a panel of their own.
    thumbnail_places: f[T, 2].

  Returns:
    The path.
  """
  from matplotlib.figure import Figure  # late: importing it takes a second

  count = len(panels) + (thumbnails is not None)
  figure = Figure(figsize=(PANEL_INCHES * count, PANEL_INCHES + 1.0), layout='constrained')
  figure.suptitle(printable(title), fontsize='medium', parse_math=False)
  all_axes = figure.subplots(1, count, squeeze=False)[0]
  for axes, groups in zip(all_axes, panels, strict=False):
    _draw_groups(axes, places, groups)
  if thumbnails is not None and thumbnail_places is not None:
    _draw_thumbnails(all_axes[-1], thumbnails, thumbnail_places, places)
  for axes in all_axes:
    axes.set(xticks=[], yticks=[], xlim=_limits(places[:, 0]), ylim=_limits(places[:, 1]))
  return save_figure(figure, path)


def _limits(values: npt.NDArray[np.floating]) -> tuple[float, float]:
  margin = 0.05 * float(np.ptp(values)) or 1.0
  return float(values.min()) - margin, float(values.max()) + margin


def _draw_groups(axes: 'Axes', places: npt.NDArray[np.floating], groups: Groups) -> None:
  size = float(np.clip(40_000 / len(places), 16, 40))  # points squared
  others = places[groups.of_image < 0]
  if len(others):
    axes.scatter(others[:, 0], others[:, 1], s=size / 2, color=GREY, linewidths=0, label='others')
  for number, name in enumerate(groups.names):
    # The marker changes with every colour, and shifts after each round, so that neither repeats alone.
    marker = MARKERS[(number + number // len(COLORS)) % len(MARKERS)]
    own = places[groups.of_image == number]
    color = COLORS[number % len(COLORS)]
    axes.scatter(
      own[:, 0],
      own[:, 1],
      s=size,
      color=color,
      marker=marker,
      linewidths=0.3,
      edgecolors='white',
      label=short_name(name),
    )
  axes.set_title(printable(groups.title), loc='left', fontsize='medium', parse_math=False)
  legend = axes.legend(
    loc='upper center', bbox_to_anchor=(0.5, -0.01), ncols=6, fontsize='small', frameon=False, markerscale=1.3,
    handletextpad=0.2, columnspacing=1.0,
  )  # fmt: skip
  for text in legend.get_texts():
    text.set_parse_math(False)


def _draw_thumbnails(
  axes: 'Axes', images: Pixels, image_places: npt.NDArray[np.floating], places: npt.NDArray[np.floating]
) -> None:
  from matplotlib.offsetbox import AnnotationBbox, OffsetImage

  axes.scatter(places[:, 0], places[:, 1], s=3, color=GREY, linewidths=0)
  zoom = THUMBNAIL_INCHES * 72 / images.shape[1]  # points per pixel
  for image, place in zip(images, image_places, strict=True):
    axes.add_artist(AnnotationBbox(OffsetImage(image, zoom=zoom), tuple(place), pad=0.05, bboxprops={'linewidth': 0.5}))
  axes.set_title(f'{len(images)} of the images', loc='left', fontsize='medium')


def spread_places(places: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.int64]:
  """Chooses images whose thumbnails do not overlap on a map, the first that fits at each place.

  Args:
    places: f[N, 2].
    count: images to choose, at most.

  Returns:
    i64[at most count], indices.
  """
  height = THUMBNAIL_INCHES * np.ptp(places, axis=0) / (0.9 * PANEL_INCHES)
  chosen: list[int] = []
  for i, place in enumerate(places):
    if len(chosen) == count:
      break
    if not chosen or (np.abs(places[chosen] - place) > 1.05 * height).any(axis=1).all():
      chosen.append(i)
  return np.array(chosen, np.int64)
