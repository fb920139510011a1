"""The figure of a walking person: a three-dimensional skeleton, seen by a camera that looks slightly down.

Lengths are in body heights. In the body's frame x points to the person's left, y down from the top of the head and z
forward. In the image x points right and `near` towards the camera.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

from dgnet_jax.data.synthetic.people import FILLED, Rgb, Structure

Point = tuple[float, float]

YAW = {'front': 0.0, 'right': 90.0, 'back': 180.0, 'left': -90.0}  # degrees from facing the camera
LOOK_DOWN = 0.14  # a point nearer to the camera by 1 appears lower by this much
SHOULDER_Y, WAIST_Y, HIP_Y = 0.175, 0.47, 0.51
SHOULDER_X, HIP_X = 0.104, 0.052
THIGH, SHIN = 0.235, 0.225
UPPER_ARM, FOREARM = 0.16, 0.145
TORSO_WIDTH, TORSO_DEPTH = 0.122, 0.088  # half of each, at the shoulders
WAIST_RATIO = 0.84  # width of the waist relative to the shoulders
SHADE = 0.72  # brightness of the side that faces away from the light


@dataclasses.dataclass(frozen=True)
class Joint:
  """A point in the image, in body heights, and its nearness to the camera."""

  x: float
  y: float
  near: float


@dataclasses.dataclass(frozen=True)
class Limb:
  """Root, bend and end of an arm or leg, and the tip of its foot or hand."""

  root: Joint
  bend: Joint
  end: Joint
  tip: Joint


class View:
  """Projects body coordinates to the image."""

  def __init__(self, structure: Structure) -> None:
    self.yaw = math.radians(YAW[structure.facing] + structure.turn)
    self.cos, self.sin = math.cos(self.yaw), math.sin(self.yaw)
    self.build = structure.body.build

  def joint(self, x: float, y: float, z: float) -> Joint:
    near = z * self.cos - x * self.sin
    return Joint(x * self.cos + z * self.sin, y + LOOK_DOWN * near, near)

  def half_width(self, width: float, depth: float) -> float:
    """Returns half the visible width of an upright elliptic cylinder with these half axes."""
    return math.hypot(width * self.cos, depth * self.sin)

  def girth(self, width: float, depth: float) -> float:
    """`half_width` of a part that scales with the body's build."""
    return self.build * self.half_width(width, depth)


def _limb(
  view: View,
  root: tuple[float, float],
  lengths: tuple[float, float],
  angles: tuple[float, float],
  spread: float,
  tip: float,
) -> Limb:
  """Builds a limb from its root (x, y).

  Its two segments have `angles` with the vertical, forward positive, and move sideways by `spread` in total.
  """
  x, y = root
  points = [(x, y, 0.0)]
  for length, angle, share in zip(lengths, angles, (0.6, 0.4), strict=True):
    x, y, z = points[-1]
    points.append((x + spread * share, y + length * math.cos(angle), z + length * math.sin(angle)))
  x, y, z = points[-1]
  points.append((x, y + 0.3 * tip, z + tip))
  return Limb(*(view.joint(*point) for point in points))


def legs_and_arms(structure: Structure, view: View) -> dict[str, Limb]:
  """Returns the four limbs at the structure's phase of the walk; arms swing against the legs."""
  swing = structure.stride * math.sin(2 * math.pi * structure.phase)
  lift = structure.stride * math.cos(2 * math.pi * structure.phase)
  limbs = {}
  for side, sign in (('left', 1), ('right', -1)):
    # The knee of the leg that moves forward bends; the other leg carries the body.
    knee = 0.08 + 1.5 * max(sign * lift, 0.0)
    thigh = sign * swing + 0.35 * max(sign * lift, 0.0)
    legs = (thigh, thigh - knee)
    limbs[f'{side} leg'] = _limb(view, (sign * HIP_X * view.build, HIP_Y), (THIGH, SHIN), legs, sign * 0.004, 0.075)
    arms = (-0.85 * sign * swing, -0.85 * sign * swing + 0.2 + 0.5 * max(-sign * swing, 0.0))
    root = (sign * SHOULDER_X * view.build, SHOULDER_Y + 0.026)
    limbs[f'{side} arm'] = _limb(view, root, (UPPER_ARM, FOREARM), arms, sign * 0.045, 0.0)
  return limbs


def shaded(colour: Rgb, factor: float) -> Rgb:
  """Returns a colour in less or more light."""
  red, green, blue = (min(255, max(0, round(value * factor))) for value in colour)
  return red, green, blue


class Brush:
  """Draws the parts of a body at its place in an image."""

  def __init__(self, image: Image.Image, structure: Structure, lowest: float, light_side: int) -> None:
    self.image = image
    self.light_side = light_side
    self._draw = ImageDraw.Draw(image)
    self.build = structure.body.build
    self.unit = structure.height * image.height  # pixels of the body's height
    self.x = structure.centre_x * image.width
    self.y = structure.foot_y * image.height - lowest * self.unit

  def pixel(self, x: float, y: float) -> Point:
    """Converts body heights to pixels."""
    return self.x + x * self.unit, self.y + y * self.unit

  def polygon(self, points: list[Point], colour: Rgb) -> None:
    self._draw.polygon([self.pixel(*point) for point in points], fill=colour)

  def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, colour: Rgb) -> None:
    (left, top), (right, bottom) = self.pixel(x - radius_x, y - radius_y), self.pixel(x + radius_x, y + radius_y)
    self._draw.ellipse((left, top, right, bottom), fill=colour)

  def _segment(self, start: Point, end: Point, radii: tuple[float, float], colour: Rgb) -> None:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy) or 1.0
    nx, ny = -dy / length, dx / length
    (x0, y0), (x1, y1), (r0, r1) = start, end, radii
    outline = [(x0 + nx * r0, y0 + ny * r0), (x1 + nx * r1, y1 + ny * r1)]
    outline += [(x1 - nx * r1, y1 - ny * r1), (x0 - nx * r0, y0 - ny * r0)]
    self.polygon(outline, colour)
    self.ellipse(x0, y0, r0, r0, colour)
    self.ellipse(x1, y1, r1, r1, colour)

  def tube(self, joints: Sequence[Joint], radii: Sequence[float], colour: Rgb) -> None:
    """Draws a bent, tapered, rounded part: in shade, with a narrower lit part on the light's side."""
    for share, shift, factor in ((1.0, 0.0, SHADE), (0.74, 0.26 * self.light_side, 1.0)):
      points = [(joint.x + shift * radius, joint.y) for joint, radius in zip(joints, radii, strict=True)]
      for index in range(len(points) - 1):
        widths = (share * radii[index], share * radii[index + 1])
        self._segment(points[index], points[index + 1], widths, shaded(colour, factor))

  def limb(self, joints: Sequence[Joint], radii: Sequence[float], colour: Rgb) -> None:
    """Draws a tube whose thickness scales with the body's build."""
    self.tube(joints, [self.build * radius for radius in radii], colour)

  def cloth(self, points: list[Point], colours: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Draws a polygon of varying colour: `colours` maps body coordinates x and y f[h, w] to f[h, w, 3] in [0, 255]."""
    pixels = np.asarray([self.pixel(*point) for point in points])
    left, top = np.floor(pixels.min(axis=0)).astype(int)
    right, bottom = np.ceil(pixels.max(axis=0)).astype(int) + 1
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, self.image.width), min(bottom, self.image.height)
    if left >= right or top >= bottom:
      return
    x = (np.arange(left, right) - self.x) / self.unit
    y = (np.arange(top, bottom) - self.y) / self.unit
    colour = colours(*np.meshgrid(x, y))
    mask = Image.new('L', (right - left, bottom - top))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in pixels - (left, top)], fill=255)
    self.image.paste(Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8)), (int(left), int(top)), mask)


def lit_across(x: np.ndarray, half_width: float, light_side: int) -> np.ndarray:
  """Returns the brightness f[h, w] in [SHADE, 1] across an upright cylinder; it falls off away from the light."""
  away: np.ndarray = np.clip((1 - light_side * x / half_width) / 2, 0, 1)
  return 1 - (1 - SHADE) * away**1.5


def pattern_mask(pattern: str, angle: np.ndarray, down: np.ndarray) -> np.ndarray:
  """Returns where a top shows its second colour.

  Patterns are coarse: an image 32 pixels wide shows about three stripes.

  Args:
    pattern: one of PATTERNS, or FILLED.
    angle: f[h, w], radians around the body from the middle of the chest.
    down: f[h, w], body heights below the shoulders.

  Returns:
    bool[h, w].
  """
  row = down / 0.055
  mask: np.ndarray = np.full(angle.shape, pattern == FILLED)
  if pattern == 'horizontal_stripes':
    mask = np.floor(row) % 2 == 1
  elif pattern == 'vertical_stripes':
    mask = np.cos(6 * angle) < -0.1
  elif pattern == 'checks':
    mask = (np.cos(5 * angle) < 0) ^ (np.floor(row * 0.85) % 2 == 1)
  elif pattern == 'dots':
    line = np.floor(row * 0.8)
    column = 5 * angle / np.pi + 0.5 * (line % 2)
    mask = (column - np.rint(column)) ** 2 + (row * 0.8 - line - 0.5) ** 2 < 0.36**2
  elif pattern == 'logo':  # on chest and back
    across = np.abs(np.arctan2(np.sin(angle), np.cos(angle)))
    across = np.minimum(across, np.pi - across)
    mask = (across / 0.62) ** 2 + ((down - 0.12) / 0.065) ** 2 < 1
  return mask
