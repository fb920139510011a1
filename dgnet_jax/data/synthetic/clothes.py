"""The clothes of a built-in pedestrian, drawn from legs to hair and from far to near."""

from collections.abc import Callable
import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dgnet_jax.data.synthetic.figure import (
  HIP_Y,
  SHADE,
  SHOULDER_Y,
  TORSO_DEPTH,
  TORSO_WIDTH,
  WAIST_RATIO,
  WAIST_Y,
  Brush,
  Joint,
  Limb,
  View,
  legs_and_arms,
  lit_across,
  pattern_mask,
  shaded,
)
from dgnet_jax.data.synthetic.people import Appearance, Rgb, Structure

SOLE = 0.022  # from the foot's middle to the ground
HEM_Y = 0.7  # of a skirt
HIP_HALF_WIDTH = 0.112
METAL: Rgb = (60, 60, 64)


def _between(start: Joint, end: Joint, share: float) -> Joint:
  """Interpolates between two joints; `share` 0 is the start."""
  x, y, near = (a + share * (b - a) for a, b in ((start.x, end.x), (start.y, end.y), (start.near, end.near)))
  return Joint(x, y, near)


def _draw_ground_shadow(image: Image.Image, brush: Brush, ground: float) -> None:
  """Draws a soft dark patch under the feet."""
  x, y = brush.pixel(0.03 * -brush.light_side, ground - 0.005)
  width, height = round(0.56 * brush.unit), round(0.12 * brush.unit)
  shrink = 4  # a wide blur needs few pixels
  mask = Image.new('L', (max(width // shrink, 4), max(height // shrink, 4)))
  inner = (mask.width * 0.2, mask.height * 0.25, mask.width * 0.8, mask.height * 0.75)
  ImageDraw.Draw(mask).ellipse(inner, fill=120)
  mask = mask.filter(ImageFilter.GaussianBlur(mask.height / 7)).resize((width, height))
  image.paste((18, 18, 22), (round(x - width / 2), round(y - height / 2)), mask)


def _draw_leg(brush: Brush, leg: Limb, look: Appearance) -> None:
  """Draws a leg with its shoe, bare below shorts and skirts."""
  brush.tube((leg.end, leg.tip), (0.03, 0.026), look.shoe_colour)
  joints = (leg.root, leg.bend, leg.end)
  if look.bottom == 'trousers':
    brush.limb(joints, (0.066, 0.05, 0.038), look.bottom_colour)
    return
  brush.limb(joints, (0.055, 0.04, 0.027), look.skin)
  if look.bottom == 'shorts':
    brush.limb((leg.root, _between(leg.root, leg.bend, 0.82)), (0.068, 0.056), look.bottom_colour)


def _draw_arm(brush: Brush, arm: Limb, look: Appearance, *, carries: bool) -> None:
  """Draws an arm with its sleeve and hand, and a handbag if it carries one."""
  if carries:
    _draw_handbag(brush, arm.end, look.accessory_colour)
  brush.ellipse(arm.end.x, arm.end.y + 0.014, 0.024, 0.029, look.skin)
  joints = (arm.root, arm.bend, arm.end)
  if look.sleeves == 'long':
    brush.limb(joints, (0.044, 0.037, 0.029), look.top_colour)
    return
  brush.limb(joints, (0.037, 0.031, 0.023), look.skin)
  brush.limb((arm.root, _between(arm.root, arm.bend, 0.68)), (0.044, 0.044), look.top_colour)


def _draw_handbag(brush: Brush, hand: Joint, colour: Rgb) -> None:
  """Draws a bag that hangs from the hand."""
  top, bottom = hand.y + 0.055, hand.y + 0.165
  for side in (-1, 1):
    handle = Joint(hand.x + side * 0.035, top + 0.01, 0.0)
    brush.tube((Joint(hand.x, hand.y + 0.015, 0.0), handle), (0.008, 0.008), shaded(colour, SHADE))
  outline = [(hand.x - 0.055, top), (hand.x + 0.055, top), (hand.x + 0.068, bottom), (hand.x - 0.068, bottom)]
  brush.cloth(outline, functools.partial(_plain_cloth, colour, hand.x, 0.068, brush.light_side))


def _plain_cloth(
  colour: Rgb, middle: float, half_width: float, light_side: int, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
  """Returns one colour on an upright cylinder, f[h, w, 3]."""
  del y
  cloth: np.ndarray = lit_across(x - middle, half_width, light_side)[..., None] * np.asarray(colour, dtype=float)
  return cloth


def _draw_bottom(brush: Brush, view: View, look: Appearance, legs: list[Limb]) -> None:
  """Draws the hips in trousers or shorts, or a skirt over the thighs."""
  waist = WAIST_RATIO * view.girth(TORSO_WIDTH, TORSO_DEPTH)
  if look.bottom == 'skirt':
    # The cloth reaches around both knees.
    hem = view.girth(0.125, 0.11)
    left = min(-hem, *(leg.bend.x - 0.03 for leg in legs))
    right = max(hem, *(leg.bend.x + 0.03 for leg in legs))
    outline = [(-waist, WAIST_Y), (waist, WAIST_Y), (right, HEM_Y - 0.01), (0.0, HEM_Y + 0.01), (left, HEM_Y - 0.01)]
  else:
    hip = view.girth(HIP_HALF_WIDTH, 0.085)
    outline = [(-waist, WAIST_Y), (waist, WAIST_Y), (hip, HIP_Y + 0.02), (0.0, HIP_Y + 0.075), (-hip, HIP_Y + 0.02)]
  half_width = max(abs(x) for x, _ in outline)
  brush.cloth(outline, functools.partial(_plain_cloth, look.bottom_colour, 0.0, half_width, brush.light_side))


def _top_cloth(view: View, look: Appearance, light_side: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """Returns the colour function of the top's body, whose pattern runs around the person."""
  half_width = view.girth(TORSO_WIDTH, TORSO_DEPTH)

  def colours(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle = np.arcsin(np.clip(x / half_width, -1, 1)) - view.yaw
    second = pattern_mask(look.pattern, angle, y - SHOULDER_Y)
    colour = np.where(second[..., None], look.top_second_colour, look.top_colour)
    cloth: np.ndarray = colour * lit_across(x, half_width, light_side)[..., None]
    return cloth

  return colours


def _draw_torso(brush: Brush, view: View, look: Appearance) -> None:
  """Draws the top without its sleeves."""
  shoulder = view.girth(TORSO_WIDTH, TORSO_DEPTH)
  waist = WAIST_RATIO * shoulder
  right = [(0.04, 0.145), (0.72 * shoulder, 0.16), (shoulder, 0.195), (0.93 * shoulder, 0.32), (waist, 0.44)]
  right.append((1.06 * waist, HIP_Y + 0.005))
  outline = right + [(-x, y) for x, y in reversed(right)]
  brush.cloth(outline, _top_cloth(view, look, brush.light_side))


def _draw_backpack(brush: Brush, view: View, colour: Rgb) -> None:
  """Draws a backpack."""
  middle = view.joint(0.0, 0.0, -0.125)
  half_width = view.half_width(0.1, 0.062)
  top, bottom = 0.185 + middle.y, 0.45 + middle.y
  corner = 0.03
  right = [(half_width - corner, top), (half_width, top + corner), (half_width, bottom - corner)]
  right.append((half_width - corner, bottom))
  outline = [(middle.x + x, y) for x, y in right] + [(middle.x - x, y) for x, y in reversed(right)]
  brush.cloth(outline, functools.partial(_plain_cloth, colour, middle.x, half_width, brush.light_side))
  pocket = [(middle.x + side * 0.7 * half_width, y) for side, y in ((-1, 0.33), (1, 0.33), (1, 0.42), (-1, 0.42))]
  brush.polygon([(x, y + middle.y) for x, y in pocket], shaded(colour, 0.62))


def _draw_straps(brush: Brush, view: View, colour: Rgb) -> None:
  """Draws the backpack's straps over the chest where they are visible."""
  for side in (-1, 1):
    top, bottom = view.joint(side * 0.068, 0.155, 0.045), view.joint(side * 0.085, 0.37, 0.075)
    if bottom.near > 0.01:
      brush.tube((top, bottom), (0.017, 0.015), colour)


def _draw_shoulder_bag(brush: Brush, view: View, colour: Rgb) -> None:
  """Draws a bag at the left hip with its strap over the right shoulder."""
  top, hip = view.joint(-0.07, 0.17, 0.0), view.joint(0.13 * view.build, 0.5, 0.0)
  brush.tube((top, hip), (0.016, 0.016), shaded(colour, SHADE))
  half_width = view.half_width(0.045, 0.085)
  outline = [(hip.x + side * half_width, y) for side, y in ((-1, 0.46), (1, 0.46), (1, 0.6), (-1, 0.6))]
  brush.cloth(outline, functools.partial(_plain_cloth, colour, hip.x, half_width, brush.light_side))


def _draw_suitcase(brush: Brush, view: View, ground: float, colour: Rgb) -> None:
  """Draws a suitcase on wheels beside the right hand, with its handle pulled out."""
  middle, half_width = view.joint(-0.2, 0.0, -0.05).x, view.half_width(0.075, 0.05)
  top, bottom = ground - 0.27, ground - 0.01
  for side in (-1, 1):
    rod = middle + side * 0.6 * half_width
    brush.tube((Joint(rod, top, 0.0), Joint(rod, top - 0.12, 0.0)), (0.008, 0.008), METAL)
  outline = [(middle + side * half_width, y) for side, y in ((-1, top), (1, top), (1, bottom), (-1, bottom))]
  brush.cloth(outline, functools.partial(_plain_cloth, colour, middle, half_width, brush.light_side))
  band = [(middle + side * half_width, top + y) for side, y in ((-1, 0.1), (1, 0.1), (1, 0.13), (-1, 0.13))]
  brush.polygon(band, shaded(colour, 0.62))


def _draw_hat(brush: Brush, skull: float, colour: Rgb) -> None:
  """Draws a hat with a brim."""
  brush.polygon([(-skull, 0.05), (-0.85 * skull, -0.035), (0.85 * skull, -0.035), (skull, 0.05)], colour)
  brush.ellipse(0.0, 0.05, 2.1 * skull, 0.017, shaded(colour, SHADE))


def _draw_head(brush: Brush, view: View, look: Appearance, head: str) -> None:
  """Draws the head with hair and hat, and the face if it is turned to the camera."""
  brush.tube((Joint(0, 0.12, 0), Joint(0, 0.155, 0)), (0.034, 0.04), shaded(look.skin, 0.85))
  skull = view.half_width(0.056, 0.065)
  back = -0.012 * view.sin
  hair, dark = look.hair_colour, shaded(look.hair_colour, SHADE)
  if head == 'bun':
    brush.ellipse(2.2 * back, 0.014, 0.032, 0.026, dark)
  elif head == 'curls':
    brush.ellipse(back, 0.06, 0.105, 0.105, hair)
  elif head == 'long_hair':
    fall = [(back - skull, 0.06), (back + skull, 0.06), (back + 1.1 * skull, 0.21), (back - 1.1 * skull, 0.21)]
    brush.polygon(fall, dark)
    if view.cos > 0:
      # Seen from the front, the hair is behind the neck.
      brush.tube((Joint(0.02 * view.sin, 0.12, 0), Joint(0, 0.155, 0)), (0.034, 0.04), shaded(look.skin, 0.85))
  brush.ellipse(back, 0.068, skull, 0.068, hair)
  if view.cos < -0.4:
    brush.ellipse(back - 0.25 * skull * brush.light_side, 0.07, 0.75 * skull, 0.064, shaded(hair, 0.9))
  else:
    _draw_face(brush, view, look.skin)
  if head == 'hat':
    _draw_hat(brush, skull, look.accessory_colour)


def _draw_face(brush: Brush, view: View, skin: Rgb) -> None:
  """Draws the face, which slides around the head and narrows as it turns away."""
  face_x = 0.024 * view.sin
  face_width = 0.047 - 0.007 * abs(view.sin)
  brush.ellipse(face_x, 0.087, face_width, 0.055, shaded(skin, 0.86))
  brush.ellipse(face_x + 0.006 * brush.light_side, 0.086, 0.85 * face_width, 0.05, skin)
  for side in (-1, 1):
    eye = view.joint(side * 0.021, 0.08, 0.05)
    if eye.near > 0.012:
      brush.ellipse(eye.x * 0.85, 0.08, 0.0085, 0.007, (40, 32, 30))
  mouth = view.joint(0.0, 0.0, 0.045)
  brush.ellipse(mouth.x * 0.85, 0.116, 0.012 * max(view.cos, 0.4), 0.004, shaded(skin, 0.72))


def draw_person(image: Image.Image, appearance: Appearance, structure: Structure, light_side: int) -> None:
  """Draws a person and the shadow on the ground.

  Args:
    image: RGB image to draw on.
    appearance: clothes and colours.
    structure: body, pose and position.
    light_side: -1 for light from the left of the image, 1 from the right.
  """
  view = View(structure)
  limbs = legs_and_arms(structure, view)
  legs = sorted((limbs['left leg'], limbs['right leg']), key=lambda leg: leg.root.near + leg.bend.near)
  arms = sorted((limbs['left arm'], limbs['right arm']), key=lambda arm: arm.bend.near)
  ground = max(place.y for leg in legs for place in (leg.end, leg.tip)) + SOLE
  brush = Brush(image, structure, ground, light_side)

  _draw_ground_shadow(image, brush, ground)
  bag = structure.body.bag
  if bag == 'suitcase':
    _draw_suitcase(brush, view, ground, appearance.accessory_colour)
  # An arm beside the body is drawn in front of it, so that sleeves are visible.
  behind = [arm for arm in arms if arm.bend.near < -0.04]
  bag_hand = limbs['right arm'] if bag == 'handbag' else None
  for arm in behind:
    _draw_arm(brush, arm, appearance, carries=arm is bag_hand)
  if bag == 'backpack' and view.cos >= 0:
    _draw_backpack(brush, view, appearance.accessory_colour)
  for leg in legs:
    _draw_leg(brush, leg, appearance)
  _draw_bottom(brush, view, appearance, legs)
  _draw_torso(brush, view, appearance)
  if bag == 'backpack' and view.cos >= 0:
    _draw_straps(brush, view, appearance.accessory_colour)
  if bag == 'shoulder_bag':
    _draw_shoulder_bag(brush, view, appearance.accessory_colour)
  _draw_head(brush, view, appearance, structure.body.head)
  if bag == 'backpack' and view.cos < 0:
    _draw_backpack(brush, view, appearance.accessory_colour)
  for arm in arms:
    if arm not in behind:
      _draw_arm(brush, arm, appearance, carries=arm is bag_hand)
