"""Sheets of images for a person to look at: labelled, framed, enlarged where the images are small."""

from collections.abc import Mapping, Sequence
import pathlib

import numpy as np
from PIL import Image

from dgnet_jax.plots.canvas import BLUE, GREEN, LINE, MARGIN, RED, Canvas, Pixels, check_images, text_width
from dgnet_jax.utils.atomic_files import whole_file

VERDICTS = {True: GREEN, False: RED, None: None}


def swap_sheet(structures: Pixels, appearances: Pixels, grid: Pixels) -> Pixels:
  """Every appearance on every structure, with the sources on the edges.

  Args:
    structures: u8[N, H, W, 3], at the left: they give the pose, the place and the background.
    appearances: u8[M, H, W, 3], at the top: they give the clothes.
    grid: u8[N, M, H, W, 3], the generated images.

  Returns:
    u8[height, width, 3], the sheet.

  Raises:
    ValueError: shapes do not fit.
  """
  check_images('structures', structures)
  check_images('appearances', appearances)
  check_images('grid', grid, 5)
  expected = (len(structures), len(appearances), *structures.shape[1:])
  if grid.shape != expected or appearances.shape[1:] != structures.shape[1:]:
    raise ValueError(f'{structures.shape=} {appearances.shape=} {grid.shape=}')
  rows, columns = len(structures) + 1, len(appearances) + 1
  canvas = Canvas(structures.shape[1:3], (rows, columns))
  corner_x, corner_y = canvas.corner(0, 0)
  canvas.text(corner_x, corner_y, 'clothes:')
  canvas.text(corner_x, corner_y + LINE, ' top row')
  canvas.text(corner_x, corner_y + 3 * LINE, 'pose:')
  canvas.text(corner_x, corner_y + 4 * LINE, ' left column')
  for j, image in enumerate(appearances):
    canvas.image(0, j + 1, image, frame=BLUE)
  for i, image in enumerate(structures):
    canvas.image(i + 1, 0, image, frame=BLUE)
    for j, made in enumerate(grid[i]):
      canvas.image(i + 1, j + 1, made)
  return canvas.pixels()


def training_grid(rows: Mapping[str, Pixels], captions: Sequence[Sequence[str]] = ()) -> Pixels:
  """One labelled row for each kind of image; a column holds the images that belong together.

  Args:
    rows: label -> u8[N, H, W, 3], in the order to show (original, reconstructions, cross images, cycle, ...).
    captions: nothing, or lines of text for each column, written above it.

  Returns:
    u8[height, width, 3], the sheet.

  Raises:
    ValueError: there are no rows, or their shapes differ.
  """
  for name, images in rows.items():
    check_images(name, images)
  shapes = {images.shape for images in rows.values()}
  if len(shapes) != 1:
    raise ValueError(f'rows of one shape expected: { {name: images.shape for name, images in rows.items()} }')
  count, height, width, _ = shapes.pop()
  labels = [name.replace('_', ' ') for name in rows]
  left = max(text_width(label) for label in labels) + 2 * MARGIN
  canvas = Canvas((height, width), (len(rows), count), left=left, top=LINE * max(map(len, captions), default=0))
  for column, caption in enumerate(captions):
    for number, line in enumerate(caption):
      canvas.text(canvas.corner(0, column)[0], MARGIN // 2 + number * LINE, line)
  for row, (label, images) in enumerate(zip(labels, rows.values(), strict=True)):
    canvas.row_label(row, label)
    for column, image in enumerate(images):
      canvas.image(row, column, image)
  return canvas.pixels()


def truth_sheet(
  structure: Pixels,
  appearance: Pixels,
  cross: Pixels,
  truth: Pixels,
  psnr: Sequence[float],
  pattern_fidelity: Sequence[float],
) -> Pixels:
  """Generated images between their sources and the true image of the donor's clothes in that pose.

  Args:
    structure: u8[N, H, W, 3].
    appearance: u8[N, H, W, 3].
    cross: u8[N, H, W, 3], generated.
    truth: u8[N, H, W, 3], rendered.
    psnr: N values in dB, of cross against truth, written above the columns.
    pattern_fidelity: N values likewise (`clothes_quality`); NaN, where no pattern is to be seen, is shown as a dash.

  Returns:
    u8[height, width, 3], the sheet.
  """
  rows = {'structure': structure, 'appearance': appearance, 'generated': cross, 'truth': truth}
  patterns = ['-' if np.isnan(value) else f'{value:.2f}' for value in pattern_fidelity]
  lines = [(f'{value:.1f} dB', f'pattern {shown}') for value, shown in zip(psnr, patterns, strict=True)]
  return training_grid(rows, lines)


def ranked_sheet(
  queries: Pixels,
  query_labels: Sequence[Sequence[str]],
  matches: Sequence[Pixels],
  match_labels: Sequence[Sequence[Sequence[str]]],
  right: Sequence[Sequence[bool | None]],
) -> Pixels:
  """Queries at the left, each with its best gallery images: framed green where right, red where wrong.

  Args:
    queries: u8[Q, H, W, 3].
    query_labels: lines of text for each query (identity, camera).
    matches: Q arrays u8[at most K, H, W, 3], the best first.
    match_labels: lines of text for each match.
    right: whether each match is the query's person; None, and no frame, where nobody knows.

  Returns:
    u8[height, width, 3], the sheet.

  Raises:
    ValueError: lengths do not fit.
  """
  check_images('queries', queries)
  lengths = {len(queries), len(query_labels), len(matches), len(match_labels), len(right)}
  if len(lengths) != 1 or any(
    not len(m) == len(t) == len(r) for m, t, r in zip(matches, match_labels, right, strict=False)
  ):
    raise ValueError(f'{queries.shape=} does not fit the matches, their labels or their verdicts: {sorted(lengths)}')
  columns = 1 + max(len(m) for m in matches)
  lines = max(len(label) for label in query_labels)
  canvas = Canvas(queries.shape[1:3], (len(queries), columns), top=LINE, caption_lines=lines)
  canvas.text(canvas.corner(0, 0)[0], MARGIN // 2, 'query')
  for k in range(1, columns):
    canvas.text(canvas.corner(0, k)[0], MARGIN // 2, f'{k}')
  for i, query in enumerate(queries):
    canvas.image(i, 0, query, frame=BLUE, caption=query_labels[i])
    for k, (image, label, is_right) in enumerate(zip(matches[i], match_labels[i], right[i], strict=True)):
      canvas.image(i, k + 1, image, frame=VERDICTS[is_right], caption=label)
  return canvas.pixels()


def save_png(path: str | pathlib.Path, pixels: Pixels) -> pathlib.Path:
  """Writes a PNG, whole or not at all. Missing folders are made.

  Args:
    path: of the file.
    pixels: u8[height, width, 3].

  Returns:
    The path.
  """
  with whole_file(path) as aside:
    Image.fromarray(pixels).save(aside, format='PNG')
  return pathlib.Path(path)
