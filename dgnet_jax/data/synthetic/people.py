"""Who the built-in pedestrians are (appearance) and how an image shows them (structure), as plain values.

An identity is an appearance and a body, divided as the paper divides them (its table 1): colours, texture and style of
clothes are appearance; body size, hair and what is carried are structure, as are pose, place, light and camera. Any
appearance can be rendered in any structure, so the true answer of an appearance swap exists.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from dgnet_jax.data.layouts import NUM_SYNTHETIC_CAMERAS

Rgb = tuple[int, int, int]

NUM_CAMERAS = NUM_SYNTHETIC_CAMERAS
HEADS = ('short_hair', 'long_hair', 'bun', 'curls', 'hat')
SLEEVES = ('long', 'short')
PATTERNS = ('plain', 'horizontal_stripes', 'vertical_stripes', 'checks', 'dots', 'logo')
WHOLE = 'whole'  # nobody's pattern: the second colour wherever a pattern can be, on the top but not on its sleeves
BOTTOMS = ('trousers', 'shorts', 'skirt')
BAGS = ('none', 'backpack', 'handbag', 'shoulder_bag', 'suitcase')
FACINGS = ('front', 'right', 'back', 'left')
OCCLUDERS = ('none', 'pole', 'bin', 'bush', 'railing')

SKINS: tuple[Rgb, ...] = ((244, 205, 177), (228, 180, 143), (198, 143, 104), (150, 100, 68), (102, 67, 46))
NUM_FAIR_SKINS = 3  # dark skins go with dark hair
HAIRS: tuple[Rgb, ...] = ((30, 24, 22), (70, 45, 30), (125, 80, 42), (206, 164, 92), (158, 154, 150))
GARMENTS: tuple[Rgb, ...] = (
  (204, 34, 40),
  (236, 122, 28),
  (244, 208, 46),
  (46, 150, 62),
  (22, 152, 156),
  (58, 140, 226),
  (34, 62, 172),
  (120, 48, 156),
  (236, 108, 168),
  (126, 76, 40),
  (238, 238, 234),
  (140, 142, 146),
  (34, 34, 40),
)
NUM_HUES = 10  # the first garment colours are saturated, the last three are white, grey and black
BUILDS = (0.75, 1.4)  # the range of widths of a body, 1 is usual
FAMILY_SIZE = 5  # an identity and its near twins


@dataclasses.dataclass(frozen=True)
class Appearance:
  """What a person wears, and all colours. These are sRGB, 0..255, in neutral light."""

  skin: Rgb
  hair_colour: Rgb
  sleeves: str  # one of SLEEVES
  top_colour: Rgb
  top_second_colour: Rgb  # of the pattern; unseen when that is plain
  pattern: str  # one of PATTERNS, or WHOLE
  bottom: str  # one of BOTTOMS
  bottom_colour: Rgb
  shoe_colour: Rgb
  accessory_colour: Rgb  # of bag and hat


@dataclasses.dataclass(frozen=True)
class Body:
  """What stays of a person in a grey image: a part of the structure of every image of that person."""

  build: float  # width of torso and limbs, times the usual
  head: str  # one of HEADS
  bag: str  # one of BAGS


class Person(NamedTuple):
  """An identity."""

  appearance: Appearance
  body: Body


@dataclasses.dataclass(frozen=True)
class Structure:
  """One image but for the colours and clothes in it. Lengths are fractions of the image's height or width."""

  body: Body
  camera: int  # 1..NUM_CAMERAS: scene, light direction and colour
  facing: str  # one of FACINGS; left and right as the viewer sees them
  turn: float  # degrees that the body is turned away from `facing`
  phase: float  # 0..1, place in the walking cycle
  stride: float  # radians that a leg swings to each side of the vertical; 0 stands
  centre_x: float  # of the body, of the width
  foot_y: float  # of the lower foot, of the height; above 1 the feet are cut off
  height: float  # of the body, of the image's height
  background_x: float  # 0..1, where in the camera's scene the crop lies
  background_y: float
  light: float  # of this image, times the camera's own
  blur: float  # standard deviation, pixels of an image 128 high
  occluder: str  # one of OCCLUDERS
  occluder_x: float  # of the width
  noise_seed: int  # of the sensor noise


def appearance_from_json(values: Mapping[str, Any]) -> Appearance:
  """The inverse of `dataclasses.asdict` after a trip through JSON, where colours become lists."""
  plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
  return Appearance(**plain)


def structure_from_json(values: Mapping[str, Any]) -> Structure:
  """The inverse of `dataclasses.asdict` after a trip through JSON."""
  return Structure(**{**values, 'body': Body(**values['body'])})


def _choice(rng: np.random.Generator, options: tuple, weights: tuple[float, ...] | None = None) -> Any:
  """One of `options`, with chances in proportion to `weights`."""
  chances = None if weights is None else np.asarray(weights) / np.sum(weights)
  return options[int(rng.choice(len(options), p=chances))]


def _colour(rng: np.random.Generator, options: tuple[Rgb, ...], *, unlike: tuple[Rgb, ...] = ()) -> Rgb:
  """One of `options`, varied a little, and well apart from each colour of `unlike`."""
  far = [
    option
    for option in options
    if all(np.linalg.norm(np.subtract(option, other, dtype=float)) > 90 for other in unlike)
  ]
  base = np.asarray(_choice(rng, tuple(far or options)))
  return tuple(int(value) for value in np.clip(base + rng.integers(-12, 13, size=3), 0, 255))  # type: ignore[return-value]


def _rounded(rng: np.random.Generator, low: float, high: float) -> float:
  """Uniform in [low, high); four digits, so that a manifest stays readable and says exactly what was drawn."""
  return round(float(rng.uniform(low, high)), 4)


def draw_appearance(rng: np.random.Generator) -> Appearance:
  """Clothes at random, mostly in saturated colours; the top's two colours differ."""
  top = _colour(rng, GARMENTS)
  skin = _choice(rng, tuple(range(len(SKINS))))
  return Appearance(
    skin=_colour(rng, SKINS[skin : skin + 1]),
    hair_colour=_colour(rng, HAIRS if skin < NUM_FAIR_SKINS else HAIRS[:2]),
    sleeves=_choice(rng, SLEEVES),
    top_colour=top,
    top_second_colour=_colour(rng, GARMENTS, unlike=(top,)),
    pattern=_choice(rng, PATTERNS, (5, 2, 2, 2, 2, 2)),
    bottom=_choice(rng, BOTTOMS, (5, 3, 2)),
    bottom_colour=_colour(rng, GARMENTS, unlike=(top,)),
    shoe_colour=_colour(rng, GARMENTS),
    accessory_colour=_colour(rng, GARMENTS[:NUM_HUES], unlike=(top,)),
  )


def draw_body(rng: np.random.Generator) -> Body:
  """A body at random."""
  return Body(_rounded(rng, *BUILDS), _choice(rng, HEADS), _choice(rng, BAGS))


def draw_person(rng: np.random.Generator) -> Person:
  """An identity at random."""
  return Person(draw_appearance(rng), draw_body(rng))


def _another_body(rng: np.random.Generator, body: Body) -> Body:
  """Another build, head and bag."""
  apart = (BUILDS[1] - BUILDS[0]) / 2
  return Body(
    round(body.build + (apart if body.build < sum(BUILDS) / 2 else -apart), 4),
    _choice(rng, tuple(head for head in HEADS if head != body.head)),
    _choice(rng, tuple(bag for bag in BAGS if bag != body.bag)),
  )


def _twins(rng: np.random.Generator) -> list[Person]:
  """FAMILY_SIZE people: the first, and one each with another top colour, bottom colour, pattern and body."""
  first = draw_person(rng)
  look = first.appearance
  top, second, bottom = look.top_colour, look.top_second_colour, look.bottom_colour
  others = (
    dataclasses.replace(look, top_colour=_colour(rng, GARMENTS, unlike=(top, second, bottom))),
    dataclasses.replace(look, bottom_colour=_colour(rng, GARMENTS, unlike=(top, bottom))),
    dataclasses.replace(look, pattern=_choice(rng, tuple(p for p in PATTERNS if p != look.pattern))),
  )
  return [first, *(Person(other, first.body) for other in others), Person(look, _another_body(rng, first.body))]


def draw_people(rng: np.random.Generator, count: int) -> list[Person]:
  """`count` different people in turn: a family of near twins, then as many people unlike each other, and so on.

  Within a family the others differ from the first in one colour, in the pattern or in the body only, so that half of
  all people can be mistaken for somebody.
  """
  people: list[Person] = []
  while len(people) < count:
    people += _twins(rng)
    people += [draw_person(rng) for _ in range(FAMILY_SIZE)]
  return people[:count]


def draw_structure(rng: np.random.Generator, camera: int, body: Body) -> Structure:
  """An image at random by one camera: one in five is partly hidden, one in eight partly outside the crop."""
  values: dict[str, Any] = {
    'body': body,
    'camera': camera,
    'facing': _choice(rng, FACINGS),
    'turn': _rounded(rng, -22, 22),
    'phase': _rounded(rng, 0, 1),
    'stride': _rounded(rng, 0.12, 0.5),
    'centre_x': _rounded(rng, 0.45, 0.55),
    'foot_y': _rounded(rng, 0.945, 0.99),
    'height': _rounded(rng, 0.84, 0.94),
    'background_x': _rounded(rng, 0, 1),
    'background_y': _rounded(rng, 0, 1),
    'light': _rounded(rng, 0.86, 1.14),
    'blur': _rounded(rng, 0.2, 0.9),
    'occluder': _choice(rng, OCCLUDERS, (16, 1, 1, 1, 1)),
    'occluder_x': _rounded(rng, 0.15, 0.85),
    'noise_seed': int(rng.integers(2**31)),
  }
  if rng.random() < 0.125:
    cut = _choice(rng, ('legs', 'side'))
    if cut == 'legs':
      values |= {'height': _rounded(rng, 1.0, 1.2), 'foot_y': _rounded(rng, 1.08, 1.22)}
    else:
      values |= {'centre_x': _choice(rng, (0.3, 0.7))}
  return Structure(**values)


def draw_junk_structure(rng: np.random.Generator, camera: int, body: Body) -> Structure:
  """A crop that no detector should have made: an empty scene, or far too close to a body."""
  usual = draw_structure(rng, camera, body)
  if rng.random() < 0.5:
    return dataclasses.replace(usual, centre_x=-3.0)
  return dataclasses.replace(
    usual, centre_x=_rounded(rng, -0.1, 1.1), height=_rounded(rng, 2.0, 3.0), foot_y=_rounded(rng, 1.0, 3.0)
  )


def hand_drawn(structure: Structure) -> Structure:
  """The same moment in a box drawn by hand: the person whole and centred."""
  return dataclasses.replace(structure, centre_x=0.5, foot_y=0.98, height=0.92)
