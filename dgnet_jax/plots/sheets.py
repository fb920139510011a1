"""Labelled sheets of images; small images are enlarged."""

from collections.abc import Mapping, Sequence

import numpy as np

from dgnet_jax.plots.canvas import BLUE, GREEN, LINE, MARGIN, RED, Canvas, Pixels, check_images, text_width

MATCH_COLORS = {True: GREEN, False: RED, None: None}


def swap_sheet(structures: Pixels, appearances: Pixels, grid: Pixels) -> Pixels:
  """Draws every combination of structure and appearance, with the donors in the first row and column.

  Args:
    structures: u8[N, H, W, 3], shown at the left: they give pose, position and background.
    appearances: u8[M, H, W, 3], shown at the top: they give the clothes.
    grid: u8[N, M, H, W, 3], the generated images.

  Returns:
    The sheet, u8[height, width, 3].

  Raises:
    ValueError: the shapes do not fit.
  """
  check_images('structures', structures)
  check_images('appearances', appearances)
  check_images('grid', grid, 5)
  expected = (len(structures), len(appearances), *structures.shape[1:])
  if grid.shape != expected or appearances.shape[1:] != structures.shape[1:]:
    raise ValueError(f'{structures.shape=} {appearances.shape=} {grid.shape=}')
  canvas = Canvas(structures.shape[1:3], (len(structures) + 1, len(appearances) + 1))
  corner_x, corner_y = canvas.corner(0, 0)
  for line, text in enumerate(('clothes:', ' top row', '', 'pose:', ' left column')):
    canvas.text(corner_x, corner_y + line * LINE, text)
  for j, image in enumerate(appearances):
    canvas.image(0, j + 1, image, frame=BLUE)
  for i, image in enumerate(structures):
    canvas.image(i + 1, 0, image, frame=BLUE)
    for j, generated in enumerate(grid[i]):
      canvas.image(i + 1, j + 1, generated)
  return canvas.pixels()


def image_grid(rows: Mapping[str, Pixels], captions: Sequence[Sequence[str]] = ()) -> Pixels:
  """Draws one labeled row for each kind of image; images of one column belong together.

  Args:
    rows: label -> u8[N, H, W, 3], from top to bottom.
    captions: lines of text above each column; empty for none.

  Returns:
    The sheet, u8[height, width, 3].

  Raises:
    ValueError: there are no rows, or their shapes differ.
  """
  for name, images in rows.items():
    check_images(name, images)
  shapes = {images.shape for images in rows.values()}
  if len(shapes) != 1:
    raise ValueError(f'rows must have one shape: { {name: images.shape for name, images in rows.items()} }')
  count, height, width, _ = shapes.pop()
  labels = [name.replace('_', ' ') for name in rows]
  left = max(text_width(label) for label in labels) + 2 * MARGIN
  canvas = Canvas((height, width), (len(rows), count), left=left, top=LINE * max(map(len, captions), default=0))
  for column, caption in enumerate(captions):
    for line, text in enumerate(caption):
      canvas.heading(column, text, line=line)
  for row, (label, images) in enumerate(zip(labels, rows.values(), strict=True)):
    canvas.row_label(row, label)
    for column, image in enumerate(images):
      canvas.image(row, column, image)
  return canvas.pixels()


def ground_truth_sheet(
  images: Mapping[str, Pixels], psnr: Sequence[float], pattern_fidelity: Sequence[float]
) -> Pixels:
  """Draws generated images beside their donors and the ground truth.

  Args:
    images: the rows, label -> u8[N, H, W, 3]: donors, generated images and ground truth.
    psnr: N values in dB, of the generated images.
    pattern_fidelity: N values, of the generated images; NaN, where no pattern is visible, is shown as a dash.

  Returns:
    The sheet, u8[height, width, 3].
  """
  patterns = ['-' if np.isnan(value) else f'{value:.2f}' for value in pattern_fidelity]
  captions = [(f'{value:.1f} dB', f'pattern {pattern}') for value, pattern in zip(psnr, patterns, strict=True)]
  return image_grid(images, captions)


def ranked_sheet(
  queries: Pixels,
  query_labels: Sequence[Sequence[str]],
  ranked: Sequence[Pixels],
  ranked_labels: Sequence[Sequence[Sequence[str]]],
  is_match: Sequence[Sequence[bool | None]],
  *,
  headings: Sequence[str] = (),
) -> Pixels:
  """Draws queries at the left, each with its most similar gallery images: matches framed green, the others red.

  Args:
    queries: u8[Q, H, W, 3].
    query_labels: lines of text for each query (identity, camera).
    ranked: Q arrays u8[at most K, H, W, 3], the most similar first.
    ranked_labels: lines of text for each of these images.
    is_match: True where an image shows the query's identity; None, which draws no frame, where that is not known.
    headings: of the columns of ranked images; their numbers from 1 by default.

  Returns:
    The sheet, u8[height, width, 3].

  Raises:
    ValueError: the lengths do not fit.
  """
  check_images('queries', queries)
  lengths = {len(queries), len(query_labels), len(ranked), len(ranked_labels), len(is_match)}
  rows = zip(ranked, ranked_labels, is_match, strict=False)
  if len(lengths) != 1 or any(not len(images) == len(labels) == len(matches) for images, labels, matches in rows):
    raise ValueError(f'{queries.shape=} does not fit the ranked images, their labels or is_match: {sorted(lengths)}')
  columns = 1 + max(len(images) for images in ranked)
  caption_lines = max(len(label) for label in query_labels)
  canvas = Canvas(queries.shape[1:3], (len(queries), columns), top=LINE, caption_lines=caption_lines)
  canvas.heading(0, 'query')
  for k in range(1, columns):
    canvas.heading(k, headings[k - 1] if headings else f'{k}')
  for i, query in enumerate(queries):
    canvas.image(i, 0, query, frame=BLUE, caption=query_labels[i])
    for k, (image, label, match) in enumerate(zip(ranked[i], ranked_labels[i], is_match[i], strict=True)):
      canvas.image(i, k + 1, image, frame=MATCH_COLORS[match], caption=label)
  return canvas.pixels()
