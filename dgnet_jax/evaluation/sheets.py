"""Sheets of pictures for a person to look at: labelled, framed, enlarged where the pictures are small."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dgnet_jax.files import whole_file

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Color = tuple[int, int, int]

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
GREEN, RED, BLUE = (0, 160, 60), (215, 35, 35), (40, 90, 200)
SHOWN_HEIGHT = 192  # pixels; smaller pictures are enlarged by the whole factor that comes nearest
MARGIN = 6  # pixels between pictures
FRAME = 4  # pixels of a coloured frame, drawn around the picture in the margin
FONT_SIZE = 13
LINE = 17  # pixels per line of text


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  return ImageFont.load_default(FONT_SIZE)


def _text_width(text: str) -> int:
  return int(np.ceil(_font().getlength(text)))


class _Canvas:
  """A white sheet with a grid of equal cells, each a picture with lines of text below it.

  Args:
    picture_hw: size of the pictures before enlargement, pixels.
    shape: rows and columns of the grid.
    left: pixels kept free at the left for row labels.
    top: pixels kept free at the top for headings.
    caption_lines: lines of text below each picture.
  """

  def __init__(
    self, picture_hw: tuple[int, int], shape: tuple[int, int], *, left: int = 0, top: int = 0, caption_lines: int = 0
  ) -> None:
    height, width = picture_hw
    scale = max(1, round(SHOWN_HEIGHT / height))
    self._size_wh = (width * scale, height * scale)
    self._left, self._top = left, top
    self._cell_width = self._size_wh[0] + 2 * MARGIN
    self._cell_height = self._size_wh[1] + 2 * MARGIN + caption_lines * LINE
    size = (left + shape[1] * self._cell_width, top + shape[0] * self._cell_height)
    self._sheet = Image.new('RGB', size, WHITE)
    self._draw = ImageDraw.Draw(self._sheet)

  def corner(self, row: int, column: int) -> tuple[int, int]:
    """x and y of a cell's picture on the sheet."""
    return self._left + column * self._cell_width + MARGIN, self._top + row * self._cell_height + MARGIN

  def picture(
    self, row: int, column: int, pixels: Pixels, *, frame: Color | None = None, caption: Sequence[str] = ()
  ) -> None:
    """Puts a picture u8[H, W, 3] into a cell."""
    x, y = self.corner(row, column)
    width, height = self._size_wh
    image = Image.fromarray(pixels)
    self._sheet.paste(image.resize(self._size_wh, Image.Resampling.BICUBIC), (x, y))
    if frame:
      box = (x - FRAME, y - FRAME, x + width + FRAME - 1, y + height + FRAME - 1)
      self._draw.rectangle(box, outline=frame, width=FRAME)
    for i, line in enumerate(caption):
      self.text(x, y + height + FRAME + i * LINE, line)

  def row_label(self, row: int, text: str) -> None:
    """Text in the left margin, at the middle of a row."""
    self.text(MARGIN, self.corner(row, 0)[1] + (self._size_wh[1] - LINE) // 2, text)

  def text(self, x: int, y: int, text: str) -> None:
    """One line of text with its upper left corner at x, y."""
    self._draw.text((x, y), text, fill=BLACK, font=_font())

  def pixels(self) -> Pixels:
    """The sheet as u8[height, width, 3]."""
    return np.asarray(self._sheet)


def _check_pictures(name: str, pictures: Pixels, ndim: int = 4) -> None:
  if pictures.ndim != ndim or pictures.dtype != np.uint8 or pictures.shape[-1] != 3 or not pictures.size:
    raise ValueError(f'{name}: {pictures.shape=} {pictures.dtype=}; expected u8 with {ndim} axes, the last 3 colours')


def swap_sheet(structures: Pixels, appearances: Pixels, grid: Pixels) -> Pixels:
  """Every appearance on every structure, with the sources on the edges.

  Args:
    structures: u8[N, H, W, 3], at the left: they give the pose, the place and the background.
    appearances: u8[M, H, W, 3], at the top: they give the clothes.
    grid: u8[N, M, H, W, 3], the generated pictures.

  Returns:
    u8[height, width, 3], the sheet.

  Raises:
    ValueError: shapes do not fit.
  """
  _check_pictures('structures', structures)
  _check_pictures('appearances', appearances)
  _check_pictures('grid', grid, 5)
  expected = (len(structures), len(appearances), *structures.shape[1:])
  if grid.shape != expected or appearances.shape[1:] != structures.shape[1:]:
    raise ValueError(f'{structures.shape=} {appearances.shape=} {grid.shape=}')
  rows, columns = len(structures) + 1, len(appearances) + 1
  canvas = _Canvas(structures.shape[1:3], (rows, columns))
  corner_x, corner_y = canvas.corner(0, 0)
  canvas.text(corner_x, corner_y, 'clothes:')
  canvas.text(corner_x, corner_y + LINE, ' top row')
  canvas.text(corner_x, corner_y + 3 * LINE, 'pose:')
  canvas.text(corner_x, corner_y + 4 * LINE, ' left column')
  for j, picture in enumerate(appearances):
    canvas.picture(0, j + 1, picture, frame=BLUE)
  for i, picture in enumerate(structures):
    canvas.picture(i + 1, 0, picture, frame=BLUE)
    for j, made in enumerate(grid[i]):
      canvas.picture(i + 1, j + 1, made)
  return canvas.pixels()


def training_grid(rows: Mapping[str, Pixels], captions: Sequence[str] = ()) -> Pixels:
  """One labelled row for each kind of picture; a column holds the pictures that belong together.

  Args:
    rows: label -> u8[N, H, W, 3], in the order to show (original, reconstructions, cross pictures, cycle, ...).
    captions: nothing, or a line of text for each column.

  Returns:
    u8[height, width, 3], the sheet.

  Raises:
    ValueError: there are no rows, or their shapes differ.
  """
  for name, pictures in rows.items():
    _check_pictures(name, pictures)
  shapes = {pictures.shape for pictures in rows.values()}
  if len(shapes) != 1:
    raise ValueError(f'rows of one shape expected: { {name: pictures.shape for name, pictures in rows.items()} }')
  count, height, width, _ = shapes.pop()
  labels = [name.replace('_', ' ') for name in rows]
  left = max(_text_width(label) for label in labels) + 2 * MARGIN
  canvas = _Canvas((height, width), (len(rows), count), left=left, top=LINE if captions else 0)
  for column, caption in enumerate(captions):
    canvas.text(canvas.corner(0, column)[0], MARGIN // 2, caption)
  for row, (label, pictures) in enumerate(zip(labels, rows.values(), strict=True)):
    canvas.row_label(row, label)
    for column, picture in enumerate(pictures):
      canvas.picture(row, column, picture)
  return canvas.pixels()


def truth_sheet(structure: Pixels, appearance: Pixels, cross: Pixels, truth: Pixels, psnr: Sequence[float]) -> Pixels:
  """Generated pictures between their sources and the true picture of the donor's clothes in that pose.

  Args:
    structure: u8[N, H, W, 3].
    appearance: u8[N, H, W, 3].
    cross: u8[N, H, W, 3], generated.
    truth: u8[N, H, W, 3], rendered.
    psnr: N values in dB, of cross against truth, written above the columns.

  Returns:
    u8[height, width, 3], the sheet.
  """
  rows = {'structure': structure, 'appearance': appearance, 'generated': cross, 'truth': truth}
  return training_grid(rows, [f'{value:.1f} dB' for value in psnr])


def ranked_sheet(
  queries: Pixels,
  query_labels: Sequence[Sequence[str]],
  matches: Sequence[Pixels],
  match_labels: Sequence[Sequence[Sequence[str]]],
  right: Sequence[Sequence[bool]],
) -> Pixels:
  """Queries at the left, each with its best gallery pictures: framed green where right, red where wrong.

  Args:
    queries: u8[Q, H, W, 3].
    query_labels: lines of text for each query (identity, camera).
    matches: Q arrays u8[at most K, H, W, 3], the best first.
    match_labels: lines of text for each match.
    right: whether each match is the query's person.

  Returns:
    u8[height, width, 3], the sheet.

  Raises:
    ValueError: lengths do not fit.
  """
  _check_pictures('queries', queries)
  lengths = {len(queries), len(query_labels), len(matches), len(match_labels), len(right)}
  if len(lengths) != 1 or any(
    not len(m) == len(t) == len(r) for m, t, r in zip(matches, match_labels, right, strict=False)
  ):
    raise ValueError(f'{queries.shape=} does not fit the matches, their labels or their verdicts: {sorted(lengths)}')
  columns = 1 + max(len(m) for m in matches)
  lines = max(len(label) for label in query_labels)
  canvas = _Canvas(queries.shape[1:3], (len(queries), columns), top=LINE, caption_lines=lines)
  canvas.text(canvas.corner(0, 0)[0], MARGIN // 2, 'query')
  for k in range(1, columns):
    canvas.text(canvas.corner(0, k)[0], MARGIN // 2, f'{k}')
  for i, query in enumerate(queries):
    canvas.picture(i, 0, query, frame=BLUE, caption=query_labels[i])
    for k, (picture, label, is_right) in enumerate(zip(matches[i], match_labels[i], right[i], strict=True)):
      canvas.picture(i, k + 1, picture, frame=GREEN if is_right else RED, caption=label)
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
