"""The built-in pedestrians as plain values: who they are (appearance) and how an image shows them (structure).

An identity is an appearance and a body. As in the paper (table 1), colours, texture and style of the clothes are
appearance; body size, hair and carried objects are structure, as are pose, position, light and camera. Any appearance
can be rendered in any structure, so the ground truth of an appearance swap exists.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dgnet_jax.data.layouts import NUM_SYNTHETIC_CAMERAS
from dgnet_jax.utils.text import shortened

Rgb = tuple[int, int, int]
_Option = TypeVar('_Option')
_Description = TypeVar('_Description', 'Appearance', 'Body', 'Structure')

NUM_CAMERAS = NUM_SYNTHETIC_CAMERAS
HEADS = ('short_hair', 'long_hair', 'bun', 'curls', 'hat')
SLEEVES = ('long', 'short')
PATTERNS = ('plain', 'horizontal_stripes', 'vertical_stripes', 'checks', 'dots', 'logo')
FILLED = 'filled'  # never drawn: the second colour wherever a pattern can be, on the top but not on its sleeves
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
BUILDS = (0.75, 1.4)  # range of body widths; 1 is average
FAMILY_SIZE = 5  # an identity and its lookalikes


@dataclasses.dataclass(frozen=True)
class Appearance:
  """A person's clothes and all colours, as sRGB in [0, 255] in neutral light."""

  skin: Rgb
  hair_colour: Rgb
  sleeves: str  # one of SLEEVES
  top_colour: Rgb
  top_second_colour: Rgb  # of the pattern; invisible if that is plain
  pattern: str  # one of PATTERNS, or FILLED
  bottom: str  # one of BOTTOMS
  bottom_colour: Rgb
  shoe_colour: Rgb
  accessory_colour: Rgb  # of bag and hat


@dataclasses.dataclass(frozen=True)
class Body:
  """The part of an identity that a grey image shows; it belongs to the structure of each of its images."""

  build: float  # width of torso and limbs relative to the average
  head: str  # one of HEADS
  bag: str  # one of BAGS


class Person(NamedTuple):
  """An identity of the built-in data set."""

  appearance: Appearance
  body: Body


@dataclasses.dataclass(frozen=True)
class Structure:
  """Everything in an image except clothes and colours. Lengths are fractions of the image's height or width."""

  body: Body
  camera: int  # 1..NUM_CAMERAS: scene, light direction and colour
  facing: str  # one of FACINGS; left and right from the viewer's side
  turn: float  # degrees by which the body is turned away from `facing`
  phase: float  # position in the walking cycle, in [0, 1]
  stride: float  # radians by which a leg swings to each side of the vertical; 0 is standing
  centre_x: float  # of the body, relative to the width
  foot_y: float  # of the lower foot, relative to the height; above 1 the feet are cut off
  height: float  # of the body, relative to the image's height
  background_x: float  # position of the crop in the camera's scene, in [0, 1]
  background_y: float
  light: float  # brightness relative to the camera's gain
  blur: float  # standard deviation, in pixels of an image 128 high
  occluder: str  # one of OCCLUDERS
  occluder_x: float  # relative to the width
  noise_seed: int  # seed of the sensor noise


# What can be drawn, for values that come from a file: texts, and numbers from the first to the second, both included.
CHOICES = {
  **{'sleeves': SLEEVES, 'pattern': (*PATTERNS, FILLED), 'bottom': BOTTOMS, 'head': HEADS, 'bag': BAGS},
  **{'facing': FACINGS, 'occluder': OCCLUDERS},
}
RANGES = {
  **{'build': (0.1, 10), 'turn': (-360, 360), 'phase': (0, 1), 'stride': (0, 2), 'light': (0, 10), 'blur': (0, 10)},
  **{'centre_x': (-10, 10), 'foot_y': (-10, 10), 'height': (0.01, 10), 'occluder_x': (-10, 10)},
  **{'background_x': (0, 1), 'background_y': (0, 1)},
}
INTEGERS = {'camera': (1, NUM_CAMERAS), 'noise_seed': (0, 2**31)}


def appearance_from_json(values: Mapping[str, Any]) -> Appearance:
  """Inverts `dataclasses.asdict` after JSON has turned colours into lists; raises ValueError for impossible values."""
  fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
  return _drawable(Appearance(**fields))


def structure_from_json(values: Mapping[str, Any]) -> Structure:
  """Inverts `dataclasses.asdict`; raises ValueError for impossible values."""
  return _drawable(Structure(**{**values, 'body': _drawable(Body(**values['body']))}))


def _drawable(description: _Description) -> _Description:
  """Returns the description; raises ValueError if one of its values cannot be drawn."""
  for field in dataclasses.fields(description):
    name, value = field.name, getattr(description, field.name)
    if name == 'body':
      continue
    if name in CHOICES:
      possible = value in CHOICES[name]
    elif name in RANGES:
      possible = type(value) in (int, float) and RANGES[name][0] <= value <= RANGES[name][1]
    elif name in INTEGERS:
      possible = type(value) is int and INTEGERS[name][0] <= value <= INTEGERS[name][1]
    else:
      possible = isinstance(value, tuple) and len(value) == 3 and all(_is_level(level) for level in value)
    if not possible:
      raise ValueError(f'{name}: {shortened(repr(value))}')
  return description


def _is_level(level: object) -> bool:
  return type(level) is int and 0 <= level <= 255


def _choice(rng: np.random.Generator, options: Sequence[_Option], weights: Sequence[float] | None = None) -> _Option:
  """Samples one of `options`, with probabilities proportional to `weights`."""
  probabilities = None if weights is None else np.asarray(weights) / np.sum(weights)
  return options[int(rng.choice(len(options), p=probabilities))]


def _colour(rng: np.random.Generator, options: tuple[Rgb, ...], *, unlike: tuple[Rgb, ...] = ()) -> Rgb:
  """Samples one of `options`, clearly different from each colour of `unlike`, and varies it a little."""
  different = [
    option
    for option in options
    if all(np.linalg.norm(np.subtract(option, other, dtype=float)) > 90 for other in unlike)
  ]
  base = np.asarray(_choice(rng, different or options))
  red, green, blue = np.clip(base + rng.integers(-12, 13, size=3), 0, 255).tolist()
  return red, green, blue


def _rounded(rng: np.random.Generator, low: float, high: float) -> float:
  """Samples from [low, high) uniformly; four digits, so that a manifest is readable and exact."""
  return round(float(rng.uniform(low, high)), 4)


def sample_appearance(rng: np.random.Generator) -> Appearance:
  """Samples clothes, mostly in saturated colours; the top's two colours differ."""
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


def sample_body(rng: np.random.Generator) -> Body:
  """Samples a body."""
  return Body(_rounded(rng, *BUILDS), _choice(rng, HEADS), _choice(rng, BAGS))


def sample_person(rng: np.random.Generator) -> Person:
  """Samples an identity."""
  return Person(sample_appearance(rng), sample_body(rng))


def _another_body(rng: np.random.Generator, body: Body) -> Body:
  """Samples a body with another build, head and bag."""
  difference = (BUILDS[1] - BUILDS[0]) / 2
  return Body(
    round(body.build + (difference if body.build < sum(BUILDS) / 2 else -difference), 4),
    _choice(rng, tuple(head for head in HEADS if head != body.head)),
    _choice(rng, tuple(bag for bag in BAGS if bag != body.bag)),
  )


def _sample_family(rng: np.random.Generator) -> list[Person]:
  """Samples a person, and one lookalike each with another top colour, bottom colour, pattern and body."""
  first = sample_person(rng)
  look = first.appearance
  top, second, bottom = look.top_colour, look.top_second_colour, look.bottom_colour
  others = (
    dataclasses.replace(look, top_colour=_colour(rng, GARMENTS, unlike=(top, second, bottom))),
    dataclasses.replace(look, bottom_colour=_colour(rng, GARMENTS, unlike=(top, bottom))),
    dataclasses.replace(look, pattern=_choice(rng, tuple(p for p in PATTERNS if p != look.pattern))),
  )
  return [first, *(Person(other, first.body) for other in others), Person(look, _another_body(rng, first.body))]


def sample_people(rng: np.random.Generator, count: int) -> list[Person]:
  """Samples `count` different people: alternately a family of lookalikes and FAMILY_SIZE independent people.

  The lookalikes differ from the first of their family only in one colour, the pattern or the body, so half of all
  people are easily confused with another.
  """
  people: list[Person] = []
  while len(people) < count:
    people += _sample_family(rng)
    people += [sample_person(rng) for _ in range(FAMILY_SIZE)]
  return people[:count]


def sample_structure(rng: np.random.Generator, camera: int, body: Body) -> Structure:
  """Samples an image by one camera: one in five is partly occluded, one in eight partly outside the crop."""
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


def sample_junk_structure(rng: np.random.Generator, camera: int, body: Body) -> Structure:
  """Samples a false detection: an empty scene, or far too close to a body."""
  structure = sample_structure(rng, camera, body)
  if rng.random() < 0.5:
    return dataclasses.replace(structure, centre_x=-3.0)
  return dataclasses.replace(
    structure, centre_x=_rounded(rng, -0.1, 1.1), height=_rounded(rng, 2.0, 3.0), foot_y=_rounded(rng, 1.0, 3.0)
  )


def hand_drawn(structure: Structure) -> Structure:
  """Returns the same moment in a hand-drawn box: the person complete and centred."""
  return dataclasses.replace(structure, centre_x=0.5, foot_y=0.98, height=0.92)
