"""Sheets of the paper's figures: interpolations, one structure under many appearances, what the embedding looks at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from dgnet_jax.plots.canvas import BLUE, LINE, MARGIN, SHOWN_HEIGHT, Canvas, Pixels, check_images, text_width

# From nothing to much: black, purple, red, orange, pale yellow. Dark to light, so it can be read without colours too.
HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float32)
COVER = 0.75  # share of the colour where the map is at its highest


def interpolation_sheet(
  kinds: Sequence[str], kept: Pixels, ends: Pixels, frames: Pixels, share: Sequence[float]
) -> Pixels:
  """Rows of images on the way from one code to another.

  Args:
    kinds: for each of R rows, what changes: clothes or pose.
    kept: u8[R, H, W, 3], the images that give the rest.
    ends: u8[R, 2, H, W, 3], where each row goes from and to.
    frames: u8[R, steps, H, W, 3], generated.
    share: of the second end in each frame.

  Returns:
    u8[height, width, 3], the sheet: what is kept, the first end, the frames, the second end; sources framed blue.

  Raises:
    ValueError: shapes do not fit.
  """
  check_images('frames', frames, 5)
  rows, steps, height, width, _ = frames.shape
  if kept.shape != (rows, height, width, 3) or ends.shape != (rows, 2, height, width, 3):
    raise ValueError(f'{frames.shape=} {kept.shape=} {ends.shape=}')
  if len(kinds) != rows or len(share) != steps:
    raise ValueError(f'{frames.shape=} {kinds=} {share=}')
  canvas = Canvas((height, width), (rows, steps + 3), caption_lines=1)
  for row, kind in enumerate(kinds):
    canvas.image(row, 0, kept[row], frame=BLUE, caption=['pose' if kind == 'clothes' else 'clothes'])
    canvas.image(row, 1, ends[row, 0], frame=BLUE, caption=[f'{kind} from'])
    canvas.image(row, steps + 2, ends[row, 1], frame=BLUE, caption=[f'{kind} to'])
    for step in range(steps):
      canvas.image(row, step + 2, frames[row, step], caption=[f'{share[step]:.0%}'])
  return canvas.pixels()


def appearances_sheet(structure: Pixels, appearances: Pixels, made: Pixels, columns: int) -> Pixels:
  """One structure under many appearances, in lines: the donors of the clothes, and below each the generated image.

  Args:
    structure: u8[H, W, 3], shown at the left.
    appearances: u8[N, H, W, 3].
    made: u8[N, H, W, 3], generated.
    columns: images in a line.

  Returns:
    u8[height, width, 3], the sheet.

  Raises:
    ValueError: shapes do not fit.
  """
  check_images('appearances', appearances)
  if made.shape != appearances.shape or structure.shape != made.shape[1:]:
    raise ValueError(f'{structure.shape=} {appearances.shape=} {made.shape=}')
  columns = min(columns, len(made))
  lines = -(-len(made) // columns)
  left = text_width('generated') + 2 * MARGIN
  canvas = Canvas(structure.shape[:2], (2 * lines, columns + 1), left=left, top=LINE)
  canvas.text(canvas.corner(0, 0)[0], MARGIN // 2, 'pose')
  canvas.text(canvas.corner(0, 1)[0], MARGIN // 2, 'clothes; below, the pose in them')
  for line in range(lines):
    canvas.row_label(2 * line, 'clothes')
    canvas.row_label(2 * line + 1, 'generated')
    canvas.image(2 * line + 1, 0, structure, frame=BLUE)
  for i, (donor, image) in enumerate(zip(appearances, made, strict=True)):
    line, column = divmod(i, columns)
    canvas.image(2 * line, column + 1, donor, frame=BLUE)
    canvas.image(2 * line + 1, column + 1, image)
  return canvas.pixels()


def by_stripe(activation: np.ndarray, num_stripes: int) -> np.ndarray:
  """Every horizontal stripe of each map stretched to 0..1: the code pools each stripe by itself.

  Args:
    activation: f32[N, h, w].
    num_stripes: at most h.

  Returns:
    f32[N, h, w]; a stripe without differences is 0.
  """
  stretched = np.zeros(activation.shape, np.float32)
  edges = [i * activation.shape[1] // num_stripes for i in range(num_stripes + 1)]
  for top, bottom in zip(edges, edges[1:], strict=False):
    stripe = activation[:, top:bottom]
    low, high = stripe.min((1, 2), keepdims=True), stripe.max((1, 2), keepdims=True)
    stretched[:, top:bottom] = (stripe - low) / np.where(high > low, high - low, 1)
  return stretched


def heat_over(images: Pixels, share: np.ndarray) -> Pixels:
  """Images in grey under a coloured map.

  Args:
    images: u8[N, H, W, 3].
    share: f32[N, h, w] in 0..1, enlarged to the images.

  Returns:
    u8[N, H, W, 3].
  """
  check_images('images', images)
  size_wh = images.shape[2], images.shape[1]
  covered = []
  for image, low in zip(images, share, strict=True):
    large = Image.fromarray(low.astype(np.float32)).resize(size_wh, Image.Resampling.BILINEAR)
    value = np.clip(np.asarray(large), 0, 1)
    stops = np.linspace(0, 1, len(HEAT))
    color = np.stack([np.interp(value, stops, HEAT[:, channel]) for channel in range(3)], axis=-1)
    weight = COVER * value[..., None]
    grey = image.mean(axis=-1, keepdims=True)
    covered.append(np.round((1 - weight) * grey + weight * color).astype(np.uint8))
  return np.stack(covered)


def attention_sheet(images: Pixels, activation: np.ndarray, num_stripes: int) -> Pixels:
  """Images, and below each what the embedding looks at, with lines between the stripes.

  Args:
    images: u8[N, H, W, 3].
    activation: f32[N, h, w], at least 0.
    num_stripes: of the appearance code.

  Returns:
    u8[height, width, 3], the sheet.
  """
  check_images('images', images)
  scale = max(1, round(SHOWN_HEIGHT / images.shape[1]))
  covered = heat_over(np.repeat(np.repeat(images, scale, axis=1), scale, axis=2), by_stripe(activation, num_stripes))
  rows, height = activation.shape[1], covered.shape[1]
  for i in range(1, num_stripes):
    covered[:, round(i * rows // num_stripes * height / rows)] = 255
  left = text_width('looks at') + 2 * MARGIN
  canvas = Canvas(images.shape[1:3], (2, len(images)), left=left, caption_lines=0)
  canvas.row_label(0, 'image')
  canvas.row_label(1, 'looks at')
  for i, (image, heat) in enumerate(zip(images, covered, strict=True)):
    canvas.image(0, i, image)
    canvas.image(1, i, heat)
  return canvas.pixels()
