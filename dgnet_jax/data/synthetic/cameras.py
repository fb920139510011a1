"""The six cameras of the built-in pedestrians: scenes, occluders, light and sensor.

Each scene has its own texture, from which its colours can be inferred, because the structure encoder sees grey images.
"""

from collections.abc import Callable
import dataclasses
import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dgnet_jax.data.synthetic.people import Rgb, Structure

SCENE_WIDTH = 3.0  # in heights of an image; crops lie anywhere in it
SCENE_HEIGHT = 1.15
NOISE = 3.0  # standard deviation in grey levels, for an image 128 high
HAZE: Rgb = (205, 210, 214)


@dataclasses.dataclass(frozen=True)
class Camera:
  """The properties of a camera, shared by all its images."""

  gain: float  # brightness
  cast: tuple[float, float, float]  # gains of red, green and blue
  light_side: int  # -1: light from the left of the image, 1: from the right
  haze: float = 0.0  # weight of the haze colour in the image


CAMERAS = {
  1: Camera(gain=1.0, cast=(1.0, 1.0, 1.0), light_side=-1),
  2: Camera(gain=0.7, cast=(0.93, 1.0, 1.08), light_side=1),
  3: Camera(gain=1.22, cast=(1.05, 1.0, 0.93), light_side=1),
  4: Camera(gain=0.86, cast=(0.95, 1.05, 0.95), light_side=-1),
  5: Camera(gain=0.6, cast=(1.06, 0.97, 1.0), light_side=-1),
  6: Camera(gain=1.05, cast=(1.0, 0.99, 1.02), light_side=1, haze=0.28),
}


class _Painter:
  """Draws shapes whose coordinates are in heights of the image."""

  def __init__(self, image: Image.Image, unit: float) -> None:
    self._draw = ImageDraw.Draw(image)
    self._unit = unit

  def box(self, x0: float, y0: float, x1: float, y1: float, colour: Rgb) -> None:
    """Draws a filled rectangle; nothing if it has no area."""
    if x1 > x0 and y1 > y0:
      self._draw.rectangle([value * self._unit for value in (x0, y0, x1, y1)], fill=colour)

  def blob(self, x: float, y: float, radius_x: float, radius_y: float, colour: Rgb) -> None:
    """Draws a filled ellipse."""
    box = (x - radius_x, y - radius_y, x + radius_x, y + radius_y)
    self._draw.ellipse([value * self._unit for value in box], fill=colour)

  def line(self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Rgb) -> None:
    """Draws a straight line, at least one pixel wide."""
    ends = [value * self._unit for value in (x0, y0, x1, y1)]
    self._draw.line(ends, fill=colour, width=max(1, round(width * self._unit)))


def _vary(rng: np.random.Generator, colour: Rgb, amount: int) -> Rgb:
  """Makes a colour randomly lighter or darker."""
  shift = int(rng.integers(-amount, amount + 1))
  red, green, blue = (min(255, max(0, value + shift)) for value in colour)
  return red, green, blue


def _receding_rows(top: float, first: float, growth: float) -> list[float]:
  """Returns the y coordinates of lines on the ground, closer together in the distance."""
  rows, step = [top], first
  while rows[-1] < SCENE_HEIGHT:
    rows.append(rows[-1] + step)
    step *= growth
  return rows


def _paint_plaza(paint: _Painter, rng: np.random.Generator) -> None:
  """A hedge behind pale paving slabs."""
  paint.box(0, 0, SCENE_WIDTH, 0.36, (38, 66, 34))
  for _ in range(420):
    x, y, radius = rng.uniform(0, SCENE_WIDTH), rng.uniform(0, 0.34), rng.uniform(0.012, 0.035)
    paint.blob(x, y, radius, radius * 0.7, _vary(rng, (64, 100, 48), 26))
  paint.box(0, 0.36, SCENE_WIDTH, SCENE_HEIGHT, (186, 178, 162))
  rows = _receding_rows(0.36, 0.05, 1.22)
  for row, (top, bottom) in enumerate(zip(rows, rows[1:], strict=False)):
    width = (bottom - top) * 2.1
    for x in np.arange(-(row % 2) * width / 2, SCENE_WIDTH, width):
      paint.box(x + 0.006, top + 0.005, x + width, bottom, _vary(rng, (188, 180, 164), 9))
      paint.box(x, top, x + 0.007, bottom, (142, 136, 124))
    paint.box(0, top, SCENE_WIDTH, top + 0.006, (142, 136, 124))


def _paint_bricks(paint: _Painter, rng: np.random.Generator) -> None:
  """A brick wall above a kerb and asphalt."""
  paint.box(0, 0, SCENE_WIDTH, 0.6, (196, 180, 166))
  for row, y in enumerate(np.arange(0, 0.56, 0.052)):
    for x in np.arange(-(row % 2) * 0.06, SCENE_WIDTH, 0.12):
      paint.box(x, y, x + 0.107, y + 0.041, _vary(rng, (150, 84, 68), 16))
  paint.box(0, 0.572, SCENE_WIDTH, 0.64, (206, 200, 190))
  paint.box(0, 0.64, SCENE_WIDTH, SCENE_HEIGHT, (92, 94, 100))
  for _ in range(300):
    x, y = rng.uniform(0, SCENE_WIDTH), rng.uniform(0.65, SCENE_HEIGHT)
    paint.blob(x, y, 0.012, 0.006, _vary(rng, (96, 98, 104), 18))


def _paint_shop(paint: _Painter, rng: np.random.Generator) -> None:
  """Shop windows with pale frames under a blue sign, grey flags in front."""
  paint.box(0, 0, SCENE_WIDTH, 0.5, (44, 52, 60))
  for x in np.arange(0, SCENE_WIDTH, 0.42):
    for _ in range(5):
      left, top = x + rng.uniform(0.03, 0.3), rng.uniform(0.16, 0.4)
      paint.box(left, top, left + rng.uniform(0.03, 0.1), top + rng.uniform(0.03, 0.1), _vary(rng, (96, 92, 84), 24))
    paint.box(x, 0, x + 0.035, 0.5, (206, 208, 210))
  paint.box(0, 0.46, SCENE_WIDTH, 0.5, (206, 208, 210))
  paint.box(0, 0.04, SCENE_WIDTH, 0.13, (52, 92, 150))
  paint.box(0, 0.5, SCENE_WIDTH, SCENE_HEIGHT, (152, 154, 158))
  for y in _receding_rows(0.5, 0.09, 1.35):
    paint.box(0, y, SCENE_WIDTH, y + 0.012, (116, 118, 122))
  for x in np.arange(-0.4, SCENE_WIDTH + 0.4, 0.24):
    paint.line(x + 0.3, 0.5, x, SCENE_HEIGHT, 0.009, (116, 118, 122))


def _paint_park(paint: _Painter, rng: np.random.Generator) -> None:
  """Tree trunks before bushes, and mown grass."""
  paint.box(0, 0, SCENE_WIDTH, 0.45, (70, 98, 62))
  for _ in range(260):
    radius = rng.uniform(0.03, 0.07)
    paint.blob(rng.uniform(0, SCENE_WIDTH), rng.uniform(0, 0.42), radius, radius, _vary(rng, (76, 112, 64), 24))
  for x in np.arange(0.12, SCENE_WIDTH, 0.33):
    left, width = x + rng.uniform(-0.05, 0.05), rng.uniform(0.045, 0.08)
    paint.box(left, 0, left + width, 0.5, (74, 58, 44))
    paint.box(left, 0, left + width * 0.35, 0.5, (98, 78, 58))
  paint.box(0, 0.45, SCENE_WIDTH, SCENE_HEIGHT, (112, 146, 70))
  for _ in range(1300):
    x, y = rng.uniform(0, SCENE_WIDTH), rng.uniform(0.46, SCENE_HEIGHT)
    length = 0.02 + 0.05 * (y - 0.45)
    paint.line(x, y, x + rng.uniform(-0.01, 0.01), y - length, 0.006, _vary(rng, (116, 150, 74), 34))


def _paint_crossing(paint: _Painter, rng: np.random.Generator) -> None:
  """A zebra crossing, parked cars behind."""
  paint.box(0, 0, SCENE_WIDTH, 0.12, (150, 152, 158))
  paint.box(0, 0.12, SCENE_WIDTH, SCENE_HEIGHT, (84, 84, 90))
  for x in np.arange(0.05, SCENE_WIDTH, 0.72):
    left = x + rng.uniform(0, 0.08)
    paint.blob(left + 0.3, 0.17, 0.2, 0.1, (120, 44, 48))
    paint.blob(left + 0.3, 0.17, 0.17, 0.075, (40, 46, 56))
    paint.box(left, 0.16, left + 0.6, 0.3, (128, 48, 52))
    for wheel in (0.12, 0.48):
      paint.blob(left + wheel, 0.3, 0.06, 0.055, (28, 28, 30))
      paint.blob(left + wheel, 0.3, 0.028, 0.026, (150, 150, 152))
  for x in np.arange(-0.4, SCENE_WIDTH, 0.3):
    for y in np.arange(0.48, SCENE_HEIGHT, 0.01):
      shift = 0.35 * (SCENE_HEIGHT - y)
      paint.box(x + shift, y, x + shift + 0.14, y + 0.011, (214, 212, 204))


def _paint_hall(paint: _Painter, rng: np.random.Generator) -> None:
  """An entrance hall: plaster wall with pillars and doors, a checkered floor."""
  paint.box(0, 0, SCENE_WIDTH, 0.55, (216, 196, 158))
  for x in np.arange(0.1, SCENE_WIDTH, 0.6):
    paint.box(x, 0, x + 0.09, 0.55, (184, 160, 122))
    paint.box(x + 0.07, 0, x + 0.09, 0.55, (150, 128, 96))
    paint.box(x + 0.24, 0.06, x + 0.48, 0.55, (122, 82, 52))
    paint.box(x + 0.27, 0.1, x + 0.35, 0.3, (146, 102, 66))
    paint.box(x + 0.37, 0.1, x + 0.45, 0.3, (146, 102, 66))
  paint.box(0, 0.53, SCENE_WIDTH, 0.57, (120, 92, 66))
  rows = _receding_rows(0.57, 0.06, 1.3)
  for row, (top, bottom) in enumerate(zip(rows, rows[1:], strict=False)):
    width = (bottom - top) * 1.7
    for column, x in enumerate(np.arange(0, SCENE_WIDTH, width)):
      tile: Rgb = (206, 190, 158) if (row + column) % 2 else (158, 130, 96)
      paint.box(x, top, x + width, bottom, _vary(rng, tile, 6))


SCENES: dict[int, Callable[[_Painter, np.random.Generator], None]] = {
  1: _paint_plaza,
  2: _paint_bricks,
  3: _paint_shop,
  4: _paint_park,
  5: _paint_crossing,
  6: _paint_hall,
}


@functools.lru_cache(maxsize=2 * len(SCENES))
def _scene(camera: int, unit: int) -> Image.Image:
  """Paints a camera's scene, with `unit` pixels per image height."""
  image = Image.new('RGB', (round(SCENE_WIDTH * unit), round(SCENE_HEIGHT * unit)))
  SCENES[camera](_Painter(image, unit), np.random.default_rng(camera))
  return image


def background(structure: Structure, size_wh: tuple[int, int]) -> Image.Image:
  """Crops the camera's scene, without the person; the scene repeats if the crop is wider."""
  width, height = size_wh
  scene = _scene(structure.camera, height)
  left = round(structure.background_x * max(scene.width - width, 0))
  top = round(structure.background_y * (scene.height - height))
  if width <= scene.width:
    return scene.crop((left, top, left + width, top + height))
  image = Image.new('RGB', size_wh)
  for x in range(0, width, scene.width):
    image.paste(scene, (x, -top))
  return image


def draw_occluder(image: Image.Image, structure: Structure) -> None:
  """Draws the occluder between the camera and the person, if there is one."""
  unit = image.height
  paint = _Painter(image, unit)
  x = structure.occluder_x * image.width / unit
  if structure.occluder == 'pole':
    paint.box(x - 0.03, 0, x + 0.03, 1, (112, 114, 112))
    paint.box(x - 0.03, 0, x - 0.008, 1, (158, 160, 158))
  elif structure.occluder == 'bin':
    paint.box(x - 0.12, 0.7, x + 0.12, 1, (44, 74, 62))
    paint.box(x - 0.14, 0.66, x + 0.14, 0.72, (62, 98, 84))
    paint.box(x - 0.05, 0.77, x + 0.05, 0.8, (26, 40, 36))
  elif structure.occluder == 'bush':
    rng = np.random.default_rng(structure.noise_seed)
    for _ in range(90):
      across, up = rng.normal(0, 0.13), abs(rng.normal(0, 0.13))
      paint.blob(x + across, 1 - up, 0.03, 0.02, _vary(rng, (48, 86, 42), 24))
  elif structure.occluder == 'railing':
    start, end = (x, 2.0) if structure.occluder_x > 0.5 else (-1.0, x)
    for y in (0.58, 0.76):
      paint.box(start, y, end, y + 0.03, (206, 206, 200))
    for post in np.arange(start, end, 0.13):
      paint.box(post, 0.58, post + 0.022, 1, (190, 190, 184))


def expose(image: Image.Image, structure: Structure) -> np.ndarray:
  """Applies blur, light, colour cast, haze and sensor noise.

  Args:
    image: RGB, at the final size, in neutral light.
    structure: camera, light, blur and noise_seed are read.

  Returns:
    u8[H, W, 3].
  """
  camera = CAMERAS[structure.camera]
  # Blur and noise are those of an image 128 high, rescaled to this size.
  scale = image.height / 128
  blurred = image.filter(ImageFilter.GaussianBlur(structure.blur * scale))
  pixels = np.asarray(blurred, dtype=np.float32)
  pixels = pixels * np.float32(camera.gain * structure.light) * np.asarray(camera.cast, dtype=np.float32)
  pixels = pixels * np.float32(1 - camera.haze) + np.float32(camera.haze) * np.asarray(HAZE, dtype=np.float32)
  rng = np.random.default_rng(structure.noise_seed)
  noise = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32) * np.float32(NOISE * min(scale, 1.0))
  return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
