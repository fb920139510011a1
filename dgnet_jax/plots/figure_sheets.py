"""The sheets of the paper's figures: interpolations, one structure with many appearances, and activation maps."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from dgnet_jax.plots.canvas import BLUE, LINE, MARGIN, Canvas, Pixels, check_images, display_scale, text_width

# From low to high: black, purple, red, orange, pale yellow. Brightness increases, so it reads without colors too.
HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float32)
OPACITY = 0.75  # of the color where the map is highest
BAR_SHARE = 5  # the colour bar takes this part of the width of a cell

Maps = npt.NDArray[np.float32]


def interpolation_sheet(
  kinds: Sequence[str], fixed: Pixels, ends: Pixels, frames: Pixels, shares: Sequence[float]
) -> Pixels:
  """Draws rows of images on the way from one code to another.

  Args:
    kinds: what changes in each of R rows: clothes or pose.
    fixed: u8[R, H, W, 3], the images that give what does not change.
    ends: u8[R, 2, H, W, 3], the images that each row starts and ends with.
    frames: u8[R, F, H, W, 3], generated.
    shares: share of the second end in each of the F frames, in [0, 1].

  Returns:
    The sheet, u8[height, width, 3]: the fixed image, the first end, the frames, the second end; donors framed blue.

  Raises:
    ValueError: the shapes do not fit.
  """
  check_images('frames', frames, 5)
  rows, steps, height, width, _ = frames.shape
  if fixed.shape != (rows, height, width, 3) or ends.shape != (rows, 2, height, width, 3):
    raise ValueError(f'{frames.shape=} {fixed.shape=} {ends.shape=}')
  if len(kinds) != rows or len(shares) != steps:
    raise ValueError(f'{frames.shape=} {kinds=} {shares=}')
  canvas = Canvas((height, width), (rows, steps + 3), caption_lines=1)
  for row, kind in enumerate(kinds):
    canvas.image(row, 0, fixed[row], frame=BLUE, caption=['pose' if kind == 'clothes' else 'clothes'])
    canvas.image(row, 1, ends[row, 0], frame=BLUE, caption=[f'{kind} from'])
    canvas.image(row, steps + 2, ends[row, 1], frame=BLUE, caption=[f'{kind} to'])
    for step in range(steps):
      canvas.image(row, step + 2, frames[row, step], caption=[f'{shares[step]:.0%}'])
  return canvas.pixels()


def place_colours(place: npt.NDArray[np.number]) -> Pixels:
  """Gives every place in an image a colour: red to the right, green to the bottom, blue to the top left.

  Args:
    place: [..., H, W, 2], (row, column) in pixels of an image of the same size.

  Returns:
    u8[..., H, W, 3].
  """
  height, width = place.shape[-3:-1]
  down, right = np.moveaxis(np.clip(place / [max(height - 1, 1), max(width - 1, 1)], 0, 1), -1, 0)
  colours: Pixels = np.round(255 * np.stack([right, down, 1 - (down + right) / 2], axis=-1)).astype(np.uint8)
  return colours


def gray(share: Maps) -> Pixels:
  """Shows shares [..., H, W] in [0, 1] as gray images u8[..., H, W, 3]."""
  level: Pixels = np.round(255 * share).astype(np.uint8)
  return np.repeat(level[..., None], 3, axis=-1)


def appearances_sheet(structure: Pixels, appearances: Pixels, generated: Pixels, columns: int) -> Pixels:
  """Draws one structure with many appearances: rows of donors, with the generated images below them.

  Args:
    structure: u8[H, W, 3], shown at the left.
    appearances: u8[N, H, W, 3].
    generated: u8[N, H, W, 3].
    columns: images in a row.

  Returns:
    The sheet, u8[height, width, 3].

  Raises:
    ValueError: the shapes do not fit.
  """
  check_images('appearances', appearances)
  if generated.shape != appearances.shape or structure.shape != generated.shape[1:]:
    raise ValueError(f'{structure.shape=} {appearances.shape=} {generated.shape=}')
  columns = min(columns, len(generated))
  rows = -(-len(generated) // columns)
  left = text_width('generated') + 2 * MARGIN
  canvas = Canvas(structure.shape[:2], (2 * rows, columns + 1), left=left, top=LINE)
  canvas.heading(0, 'pose')
  canvas.heading(1, 'clothes, and the generated images below')
  for row in range(rows):
    canvas.row_label(2 * row, 'clothes')
    canvas.row_label(2 * row + 1, 'generated')
    canvas.image(2 * row + 1, 0, structure, frame=BLUE)
  for i, (donor, image) in enumerate(zip(appearances, generated, strict=True)):
    row, column = divmod(i, columns)
    canvas.image(2 * row, column + 1, donor, frame=BLUE)
    canvas.image(2 * row + 1, column + 1, image)
  return canvas.pixels()


def overlay_heat(images: Pixels, heat: Maps) -> Pixels:
  """Lays colored maps over gray images.

  Args:
    images: u8[N, H, W, 3].
    heat: f32[N, h, w] in [0, 1], enlarged to the images' size.

  Returns:
    u8[N, H, W, 3].
  """
  check_images('images', images)
  size_wh = images.shape[2], images.shape[1]
  overlaid = []
  for image, small in zip(images, heat, strict=True):
    large = Image.fromarray(small.astype(np.float32)).resize(size_wh, Image.Resampling.BILINEAR)
    value = np.clip(np.asarray(large), 0, 1)
    stops = np.linspace(0, 1, len(HEAT))
    color = np.stack([np.interp(value, stops, HEAT[:, channel]) for channel in range(3)], axis=-1)
    weight = OPACITY * value[..., None]
    gray = image.mean(axis=-1, keepdims=True)
    overlaid.append(np.round((1 - weight) * gray + weight * color).astype(np.uint8))
  return np.stack(overlaid)


def activation_sheet(images: Pixels, activation: Maps) -> Pixels:
  """Draws images and, below each, the re-id network's activation from the image's lowest to its highest.

  The caption says how far these two are apart, because small differences are stretched as much as large ones.

  Args:
    images: u8[N, H, W, 3].
    activation: f32[N, H, W], at least 0.

  Returns:
    The sheet, u8[height, width, 3].
  """
  check_images('images', images)
  scale = display_scale(images.shape[1])
  enlarged = np.repeat(np.repeat(images, scale, axis=1), scale, axis=2)
  lowest, highest = activation.min((1, 2)), activation.max((1, 2))
  span = np.where(highest > lowest, highest - lowest, 1)
  overlaid = overlay_heat(enlarged, (activation - lowest[:, None, None]) / span[:, None, None])
  left = text_width('activation') + 2 * MARGIN
  canvas = Canvas((images.shape[1], images.shape[2]), (2, len(images) + 1), left=left, caption_lines=1)
  canvas.row_label(0, 'image')
  canvas.row_label(1, 'activation')
  for i, (image, map_) in enumerate(zip(images, overlaid, strict=True)):
    canvas.image(0, i, image)
    share = lowest[i] / highest[i] if highest[i] else 0
    canvas.image(1, i, map_, caption=[f'{share:.0%} to 100%'])
  _colour_bar(canvas, 1, len(images), enlarged.shape[1:3])
  return canvas.pixels()


def _colour_bar(canvas: Canvas, row: int, column: int, size_hw: tuple[int, int]) -> None:
  """Draws the colours of `overlay_heat` over medium gray in a cell, and says which is which."""
  height, width = size_hw
  bar = np.full((height, width, 3), 255, np.uint8)
  values = np.linspace(1, 0, height, dtype=np.float32)[None, :, None]
  bar_width = max(1, width // BAR_SHARE)
  bar[:, :bar_width] = overlay_heat(np.full((1, height, 1, 3), 128, np.uint8), values)[0]
  canvas.image(row, column, bar, caption=['of the highest'])
  x, y = canvas.corner(row, column)
  for text, down in (('highest', 0), ('lowest', height - LINE)):
    canvas.text(x + bar_width + MARGIN, y + down, text)
