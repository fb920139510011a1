"""The figures of the paper from a model and images: each function makes one sheet."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from dgnet_jax.api import Model
from dgnet_jax.data.image_lists import Given
from dgnet_jax.plots import figure_sheets, sheets
from dgnet_jax.plots.canvas import Pixels

ROW = 8  # images in a line of `appearances`


def swap(model: Model, structures: Given, appearances: Given) -> Pixels:
  """Every appearance on every structure, with the sources on the edges."""
  grid = model.swap_grid(structure_from=structures, appearance_from=appearances)
  return sheets.swap_sheet(model.pixels(structures), model.pixels(appearances), grid)


def pairs(model: Model, first: Given, second: Given) -> Pixels:
  """Pairs of people, each also in the clothes of the other; a column for each of as many `first` as `second`."""
  rows = {
    'A': model.pixels(first),
    'B': model.pixels(second),
    'A in the clothes of B': model.swap(structure_from=first, appearance_from=second),
    'B in the clothes of A': model.swap(structure_from=second, appearance_from=first),
  }
  return sheets.training_grid(rows)


@dataclasses.dataclass(frozen=True)
class Way:
  """A row of `interpolation`. kind: what changes, clothes or pose. kept: gives the rest. ends: two images."""

  kind: str
  kept: Given
  ends: Given


def interpolation(model: Model, ways: Sequence[Way], steps: int) -> tuple[Pixels, Pixels]:
  """Images on the way from one appearance or structure to another.

  Args:
    model: to ask.
    ways: a row each.
    steps: images in a row.

  Returns:
    The sheet u8[height, width, 3], and the frames of an animation u8[steps, h, w, 3] that shows all rows at a time.
  """
  frames = np.stack(
    [
      model.interpolate(structure_from=way.kept, appearance_from=way.ends, steps=steps)
      if way.kind == 'clothes'
      else model.interpolate(structure_from=way.ends, appearance_from=way.kept, steps=steps)
      for way in ways
    ]
  )
  kinds, share = [way.kind for way in ways], np.linspace(0, 1, steps)
  kept = np.concatenate([model.pixels(way.kept) for way in ways])
  ends = np.stack([model.pixels(way.ends) for way in ways])

  def sheet(shown: slice) -> Pixels:
    return figure_sheets.interpolation_sheet(kinds, kept, ends, frames[:, shown], share[shown].tolist())

  return sheet(slice(None)), np.stack([sheet(slice(step, step + 1)) for step in range(steps)])


def appearances(model: Model, structure: Given, donors: Given) -> Pixels:
  """One structure under many appearances."""
  made = model.swap(structure_from=structure, appearance_from=donors)
  return figure_sheets.appearances_sheet(model.pixels(structure)[0], model.pixels(donors), made, ROW)


def attention(model: Model, images: Given) -> Pixels:
  """What the embedding looks at."""
  return figure_sheets.attention_sheet(model.pixels(images), model.activation(images), model.config.reid.num_parts)


@dataclasses.dataclass(frozen=True)
class Truth:
  """Who is on the images of `ranked`.

  query_labels, gallery_labels: lines of text for each image. right: bool[Q, G], the query's person. junk: bool[Q, G],
  what is left out of a query's list.
  """

  query_labels: Sequence[Sequence[str]]
  gallery_labels: Sequence[Sequence[str]]
  right: np.ndarray
  junk: np.ndarray


def ranked(model: Model, queries: Given, gallery: Given, truth: Truth | None, count: int) -> Pixels:
  """Queries with their best matches, framed green where right and red where wrong; without truth, no frames.

  Args:
    model: to ask.
    queries: people to find.
    gallery: to search.
    truth: who they are, where that is known.
    count: matches of each query.
  """
  shown, labels, right = [], [], []
  for i, matches in enumerate(model.rank(queries, gallery)):
    best = [match for match in matches if truth is None or not truth.junk[i, match.index]][:count]
    shown.append(model.pixels(Given([gallery.items[match.index] for match in best])))
    names = [_file_name(match.path) if truth is None else truth.gallery_labels[match.index] for match in best]
    labels.append([[*name, f'{match.score:.3f}'] for name, match in zip(names, best, strict=True)])
    right.append([None if truth is None else bool(truth.right[i, match.index]) for match in best])
  query_labels = [_file_name(path) for path in queries.paths] if truth is None else truth.query_labels
  padded = [[*lines, ''] for lines in query_labels]
  return sheets.ranked_sheet(model.pixels(queries), padded, shown, labels, right)


def _file_name(path: str) -> list[str]:
  return [path.replace('\\', '/').rsplit('/', 1)[-1]]
