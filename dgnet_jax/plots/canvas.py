"""A grid of images of one size with labels and frames, which every sheet is drawn on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
GREEN, RED, BLUE = (0, 160, 60), (215, 35, 35), (40, 90, 200)
DISPLAY_HEIGHT = 192  # pixels; smaller images are enlarged by the integer factor that comes nearest
MARGIN = 6  # pixels between images
FRAME = 4  # pixels of a colored frame, drawn in the margin around the image
FONT_SIZE = 13
LINE = 17  # pixels per line of text


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  return ImageFont.load_default(FONT_SIZE)


def text_width(text: str) -> int:
  """Returns the width of a line of text, in pixels."""
  return int(np.ceil(_font().getlength(text)))


def shortened(text: str, width: int) -> str:
  """Returns `text` with its middle replaced by an ellipsis if it is wider than `width` pixels."""
  kept, result = len(text), text
  while kept and text_width(result) > width:
    kept -= 1
    result = f'{text[: (kept + 1) // 2]}\u2026{text[len(text) - kept // 2 :]}'
  return result


def display_scale(height: int) -> int:
  """Returns the integer factor by which images of this height are enlarged on a sheet."""
  return max(1, round(DISPLAY_HEIGHT / height))


class Canvas:
  """A white sheet with a grid of cells, each with an image and lines of text below it.

  Args:
    image_hw: height and width of the images before enlargement, pixels.
    shape: rows and columns of the grid.
    left: pixels left of the grid, for row labels.
    top: pixels above the grid, for headings.
    caption_lines: lines of text below each image.
  """

  def __init__(
    self, image_hw: tuple[int, int], shape: tuple[int, int], *, left: int = 0, top: int = 0, caption_lines: int = 0
  ) -> None:
    height, width = image_hw
    scale = display_scale(height)
    self._size_wh = (width * scale, height * scale)
    self._left, self._top = left, top
    self._cell_width = self._size_wh[0] + 2 * MARGIN
    self._cell_height = self._size_wh[1] + 2 * MARGIN + caption_lines * LINE
    size = (left + shape[1] * self._cell_width, top + shape[0] * self._cell_height)
    self._sheet = Image.new('RGB', size, WHITE)
    self._draw = ImageDraw.Draw(self._sheet)

  def corner(self, row: int, column: int) -> tuple[int, int]:
    """x and y of the upper left corner of a cell's image."""
    return self._left + column * self._cell_width + MARGIN, self._top + row * self._cell_height + MARGIN

  def image(
    self, row: int, column: int, pixels: Pixels, *, frame: Color | None = None, caption: Sequence[str] = ()
  ) -> None:
    """Draws an image u8[H, W, 3] in a cell."""
    x, y = self.corner(row, column)
    width, height = self._size_wh
    image = Image.fromarray(pixels)
    self._sheet.paste(image.resize(self._size_wh, Image.Resampling.BICUBIC), (x, y))
    if frame:
      box = (x - FRAME, y - FRAME, x + width + FRAME - 1, y + height + FRAME - 1)
      self._draw.rectangle(box, outline=frame, width=FRAME)
    for i, line in enumerate(caption):
      self.text(x, y + height + FRAME + i * LINE, shortened(line, self._cell_width - MARGIN))

  def row_label(self, row: int, text: str) -> None:
    """Draws text left of the grid, at the middle of a row."""
    self.text(MARGIN, self.corner(row, 0)[1] + (self._size_wh[1] - LINE) // 2, text)

  def heading(self, column: int, text: str, *, line: int = 0) -> None:
    """Draws a line of text above a column."""
    self.text(self.corner(0, column)[0], MARGIN // 2 + line * LINE, text)

  def text(self, x: int, y: int, text: str) -> None:
    """Draws a line of text with its upper left corner at x, y."""
    self._draw.text((x, y), text, fill=BLACK, font=_font())

  def pixels(self) -> Pixels:
    """Returns the sheet as u8[height, width, 3]."""
    return np.asarray(self._sheet)


def check_images(name: str, images: Pixels, ndim: int = 4) -> None:
  """Raises ValueError unless `images` are u8[..., H, W, 3] with `ndim` axes and not empty."""
  if images.ndim != ndim or images.dtype != np.uint8 or images.shape[-1] != 3 or not images.size:
    raise ValueError(f'{name}: {images.shape=} {images.dtype=}; expected u8 with {ndim} axes, the last 3 colors')
