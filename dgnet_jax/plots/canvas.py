"""A grid of equal images with labels and frames, which every sheet is drawn on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Color = tuple[int, int, int]

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
GREEN, RED, BLUE = (0, 160, 60), (215, 35, 35), (40, 90, 200)
SHOWN_HEIGHT = 192  # pixels; smaller images are enlarged by the whole factor that comes nearest
MARGIN = 6  # pixels between images
FRAME = 4  # pixels of a coloured frame, drawn around the image in the margin
FONT_SIZE = 13
LINE = 17  # pixels per line of text


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  return ImageFont.load_default(FONT_SIZE)


def text_width(text: str) -> int:
  """Pixels that a line of text takes."""
  return int(np.ceil(_font().getlength(text)))


def fitting(text: str, width: int) -> str:
  """`text`, its middle left out if it takes more than `width` pixels."""
  kept, shown = len(text), text
  while kept and text_width(shown) > width:
    kept -= 1
    shown = f'{text[: (kept + 1) // 2]}\u2026{text[len(text) - kept // 2 :]}'
  return shown


class Canvas:
  """A white sheet with a grid of equal cells, each an image with lines of text below it.

  Args:
    image_hw: size of the images before enlargement, pixels.
    shape: rows and columns of the grid.
    left: pixels kept free at the left for row labels.
    top: pixels kept free at the top for headings.
    caption_lines: lines of text below each image.
  """

  def __init__(
    self, image_hw: tuple[int, int], shape: tuple[int, int], *, left: int = 0, top: int = 0, caption_lines: int = 0
  ) -> None:
    height, width = image_hw
    scale = max(1, round(SHOWN_HEIGHT / height))
    self._size_wh = (width * scale, height * scale)
    self._left, self._top = left, top
    self._cell_width = self._size_wh[0] + 2 * MARGIN
    self._cell_height = self._size_wh[1] + 2 * MARGIN + caption_lines * LINE
    size = (left + shape[1] * self._cell_width, top + shape[0] * self._cell_height)
    self._sheet = Image.new('RGB', size, WHITE)
    self._draw = ImageDraw.Draw(self._sheet)

  def corner(self, row: int, column: int) -> tuple[int, int]:
    """x and y of a cell's image on the sheet."""
    return self._left + column * self._cell_width + MARGIN, self._top + row * self._cell_height + MARGIN

  def image(
    self, row: int, column: int, pixels: Pixels, *, frame: Color | None = None, caption: Sequence[str] = ()
  ) -> None:
    """Puts an image u8[H, W, 3] into a cell."""
    x, y = self.corner(row, column)
    width, height = self._size_wh
    enlarged = Image.fromarray(pixels)
    self._sheet.paste(enlarged.resize(self._size_wh, Image.Resampling.BICUBIC), (x, y))
    if frame:
      box = (x - FRAME, y - FRAME, x + width + FRAME - 1, y + height + FRAME - 1)
      self._draw.rectangle(box, outline=frame, width=FRAME)
    for i, line in enumerate(caption):
      self.text(x, y + height + FRAME + i * LINE, fitting(line, self._cell_width - MARGIN))

  def row_label(self, row: int, text: str) -> None:
    """Text in the left margin, at the middle of a row."""
    self.text(MARGIN, self.corner(row, 0)[1] + (self._size_wh[1] - LINE) // 2, text)

  def text(self, x: int, y: int, text: str) -> None:
    """One line of text with its upper left corner at x, y."""
    self._draw.text((x, y), text, fill=BLACK, font=_font())

  def pixels(self) -> Pixels:
    """The sheet as u8[height, width, 3]."""
    return np.asarray(self._sheet)


def check_images(name: str, images: Pixels, ndim: int = 4) -> None:
  """Raises ValueError if they are not u8[..., H, W, 3] with `ndim` axes, or none."""
  if images.ndim != ndim or images.dtype != np.uint8 or images.shape[-1] != 3 or not images.size:
    raise ValueError(f'{name}: {images.shape=} {images.dtype=}; expected u8 with {ndim} axes, the last 3 colours')
