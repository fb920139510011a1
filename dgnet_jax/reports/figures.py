"""The figures of the paper from a model and images. Each function returns a sheet u8[height, width, 3]."""

from collections.abc import Sequence
import dataclasses
import os
from typing import NamedTuple

import numpy as np

from dgnet_jax.api import Match, Model
from dgnet_jax.data.image_lists import ImageList
from dgnet_jax.data.index import DISTRACTOR, JUNK, Split
from dgnet_jax.plots import figure_sheets, sheets
from dgnet_jax.plots.canvas import Pixels

DONORS_PER_ROW = 8  # on the sheet of `appearances`


def swap(model: Model, structures: ImageList, appearances: ImageList) -> Pixels:
  """Draws every combination of structure and appearance, with the donors at the edges."""
  grid = model.swap_grid(structure_from=structures, appearance_from=appearances)
  return sheets.swap_sheet(model.pixels(structures), model.pixels(appearances), grid)


def pairs(model: Model, first: ImageList, second: ImageList) -> Pixels:
  """Draws N pairs of people, each also in the clothes of the other."""
  rows = {
    'A': model.pixels(first),
    'B': model.pixels(second),
    'A in the clothes of B': model.swap(structure_from=first, appearance_from=second),
    'B in the clothes of A': model.swap(structure_from=second, appearance_from=first),
  }
  return sheets.image_grid(rows)


def fetched(model: Model, structures: ImageList, appearances: ImageList) -> Pixels:
  """Draws where each pixel of N swaps came from; design correspondence only."""
  trace = model.trace(structure_from=structures, appearance_from=appearances)
  donors = model.pixels(appearances)
  height, width = donors.shape[1:3]
  own = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing='ij'), axis=-1)
  return sheets.image_grid(
    {
      'structure': model.pixels(structures),
      'clothes': donors,
      'position in the donor': figure_sheets.place_colours(np.broadcast_to(own, (*donors.shape[:3], 2))),
      'position fetched from': figure_sheets.place_colours(trace['place']),
      'fetched pixels': trace['fetched'],
      'trust in them': figure_sheets.gray(trace['trust']),
      'mask': figure_sheets.gray(trace['mask']),
      'result': trace['image'],
    }
  )


@dataclasses.dataclass(frozen=True)
class InterpolationRow:
  """A row of `interpolation`.

  kind: what changes, clothes or pose. fixed: the image that gives the other one. ends: the two images to interpolate
  between.
  """

  kind: str
  fixed: ImageList
  ends: ImageList


def interpolation(model: Model, rows: Sequence[InterpolationRow], steps: int) -> tuple[Pixels, Pixels]:
  """Draws images on the way from one appearance or structure to another.

  Args:
    model: generates the images.
    rows: R rows.
    steps: images per row.

  Returns:
    The sheet u8[height, width, 3], and the frames of an animation u8[steps, h, w, 3] that shows all rows at once.
  """
  frames = np.stack([_interpolated(model, row, steps) for row in rows])
  kinds, shares = [row.kind for row in rows], np.linspace(0, 1, steps).tolist()
  fixed = np.concatenate([model.pixels(row.fixed) for row in rows])
  ends = np.stack([model.pixels(row.ends) for row in rows])

  def draw(part: slice) -> Pixels:
    return figure_sheets.interpolation_sheet(kinds, fixed, ends, frames[:, part], shares[part])

  return draw(slice(None)), np.stack([draw(slice(step, step + 1)) for step in range(steps)])


def _interpolated(model: Model, row: InterpolationRow, steps: int) -> Pixels:
  if row.kind == 'clothes':
    return model.interpolate(structure_from=row.fixed, appearance_from=row.ends, steps=steps)
  return model.interpolate(structure_from=row.ends, appearance_from=row.fixed, steps=steps)


def appearances(model: Model, structure: ImageList, donors: ImageList) -> Pixels:
  """Draws one structure with many appearances."""
  generated = model.swap(structure_from=structure, appearance_from=donors)
  return figure_sheets.appearances_sheet(model.pixels(structure)[0], model.pixels(donors), generated, DONORS_PER_ROW)


def activation(model: Model, images: ImageList) -> Pixels:
  """Draws where the re-id network responds."""
  return figure_sheets.activation_sheet(model.pixels(images), model.activation(images))


def ranked(model: Model, queries: ImageList, gallery: ImageList, *, count: int) -> Pixels:
  """Draws queries with their `count` most similar images of a gallery without labels."""
  rows = []
  for path, matches in zip(queries.paths, model.rank(queries, gallery, count=count), strict=True):
    match_labels = [[os.path.basename(match.path)] for match in matches]
    rows.append(_RankedRow([os.path.basename(path)], matches, match_labels, [None] * len(matches)))
  return _ranked_sheet(model, queries, gallery, rows)


def ranked_splits(model: Model, query: Split, chosen: Sequence[int], gallery: Split, *, count: int) -> Pixels:
  """Draws queries with their most similar gallery images, without junk; matches are framed green, the others red.

  Args:
    model: ranks the gallery.
    query: the query split.
    chosen: indices of the queries to draw.
    gallery: the gallery split.
    count: images per query.
  """
  rows = []
  queries, gallery_images = ImageList([query.paths[i] for i in chosen]), ImageList(gallery.paths)
  for i, matches in zip(chosen, model.rank(queries, gallery_images), strict=True):
    same = gallery.identity == query.identity[i]
    is_junk = (gallery.identity == JUNK) | (same & (gallery.camera == query.camera[i]))
    best = [match for match in matches if not is_junk[match.index]][:count]
    match_labels = [image_label(gallery, match.index) for match in best]
    rows.append(_RankedRow(image_label(query, i), best, match_labels, [bool(same[match.index]) for match in best]))
  return _ranked_sheet(model, queries, gallery_images, rows)


class _RankedRow(NamedTuple):
  """A query's row on the ranked sheet: its label, and its matches with theirs."""

  label: list[str]
  matches: list[Match]
  match_labels: list[list[str]]
  is_match: Sequence[bool | None]


def _ranked_sheet(model: Model, queries: ImageList, gallery: ImageList, rows: Sequence[_RankedRow]) -> Pixels:
  """Draws the rows, with the score as the last line of every match."""
  images = [model.pixels(ImageList([gallery.items[match.index] for match in row.matches])) for row in rows]
  captions = [
    [[*label, f'{match.score:.3f}'] for label, match in zip(row.match_labels, row.matches, strict=True)] for row in rows
  ]
  query_labels = [[*row.label, ''] for row in rows]  # the empty line reserves space for the scores
  return sheets.ranked_sheet(model.pixels(queries), query_labels, images, captions, [row.is_match for row in rows])


def image_label(split: Split, index: int) -> list[str]:
  """Returns the identity and camera of an image, a line of text each."""
  identity = int(split.identity[index])
  names = {DISTRACTOR: 'distractor', JUNK: 'junk'}
  return [names.get(identity, f'id {identity:04d}'), f'camera {split.camera[index]}']
