"""The true images of built-in pedestrians in other images' structures, and where their garments are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import itertools
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from dgnet_jax.config.schema import Config
from dgnet_jax.data.sampling import PairSampler
from dgnet_jax.data.synthetic.dataset import Appearance, Structure, image_truth, render
from dgnet_jax.data.synthetic.people import WHOLE
from dgnet_jax.types import PixelBatch

DARK = (0, 0, 0)
LIT = 160  # grey level of a garment that is looked for; the brightest camera does not clip it


@dataclasses.dataclass(frozen=True)
class RenderedTruth:
  """N true images at the size that networks see.

  images: u8[N, H, W, 3]. plain: u8[N, H, W, 3], the same with a plain top in its main colour. light: u8[N, 3, H, W],
  what sleeves, body of the top, and bottom in a middle grey add to black ones: their share of each pixel and their
  shading. patterned: bool[N], whether the top has a pattern.
  """

  images: np.ndarray
  plain: np.ndarray
  light: np.ndarray
  patterned: np.ndarray

  def _is_lit(self, light: np.ndarray) -> np.ndarray:
    """Where `light` is above half of the most that any garment of that image has."""
    return 2 * light > self.light.max(axis=(1, 2, 3))[:, None, None]

  @property
  def garments(self) -> np.ndarray:
    """bool[N, 2, H, W]: where top and bottom are seen, what stands before them left out."""
    sleeves, body, bottom = np.moveaxis(self.light.astype(int), 1, 0)
    return np.stack([self._is_lit(sleeves + body), self._is_lit(bottom)], axis=1)

  @property
  def body(self) -> np.ndarray:
    """bool[N, H, W]: where a pattern of the top can be seen; sleeves have none."""
    return self._is_lit(self.light[:, 1].astype(int))


def _plain(person: Appearance) -> Appearance:
  return dataclasses.replace(person, pattern='plain')


def _seen(person: Appearance, structure: Structure, drawn_hw: tuple[int, int], size_hw: tuple[int, int]) -> np.ndarray:
  """The image as an image is seen: drawn at the files' size, then resized as an image is when it is read."""
  image = Image.fromarray(render(person, structure, drawn_hw))
  return np.asarray(image.resize(size_hw[::-1], Image.Resampling.BICUBIC))


def _render_one(person: Appearance, structure: Structure, drawn_hw: tuple[int, int], size_hw: tuple[int, int]) -> tuple:
  """Image, plain image and light of one truth."""

  def seen(look: Appearance) -> np.ndarray:
    return _seen(look, structure, drawn_hw, size_hw)

  image = seen(person)
  plain = image if person == _plain(person) else seen(_plain(person))
  # Sensor noise belongs to the structure, so that these two differ by the garments alone: each in a channel of its own.
  dark = dataclasses.replace(person, top_colour=DARK, top_second_colour=DARK, bottom_colour=DARK)
  lit = dataclasses.replace(
    person, pattern=WHOLE, top_colour=(LIT, 0, 0), top_second_colour=(0, LIT, 0), bottom_colour=(0, 0, LIT)
  )
  light = np.clip(seen(lit).astype(int) - seen(dark), 0, 255).astype(np.uint8)
  return image, plain, np.moveaxis(light, -1, 0)


def _image_truths(root: str, paths: Sequence[str]) -> list[tuple[Appearance, Structure]]:
  """What each image of a data set shows."""
  known = image_truth(root)
  return [known[pathlib.PurePath(os.path.relpath(path, root)).as_posix()] for path in paths]


def _sizes(config: Config) -> tuple[tuple[int, int], tuple[int, int]]:
  """Height and width of the files, and of what networks see."""
  return config.data.synthetic.image_size_hw, config.data.image_size_hw


def render_truth(
  config: Config, root: str, paths: Sequence[str], structure_from: np.ndarray, appearance_from: np.ndarray
) -> RenderedTruth:
  """The true images of one image's person in another image's structure.

  Args:
    config: of the run; the data are the built-in pedestrians.
    root: of the data set.
    paths: of its images.
    structure_from: i64[N > 0], indices into `paths`.
    appearance_from: i64[N], likewise.
  """
  truths, sizes = _image_truths(root, paths), _sizes(config)
  people = [truths[i][0] for i in appearance_from]
  made = [_render_one(who, truths[where][1], *sizes) for who, where in zip(people, structure_from, strict=True)]
  images, plain, light = map(np.stack, zip(*made, strict=True))
  return RenderedTruth(images, plain, light, np.array([person != _plain(person) for person in people]))


def with_true_cross(
  batches: Iterator[PixelBatch],
  sampler: PairSampler,
  config: Config,
  root: str,
  paths: Sequence[str],
  start_step: int,
  is_wanted: Callable[[int], bool],
) -> Iterator[PixelBatch]:
  """Adds the rendered truth of the cross images to a source's batches (`teaching.images`).

  Args:
    batches: of a source, from `start_step` on.
    sampler: of that source.
    config: of the run; the data are the built-in pedestrians.
    root: of the data set.
    paths: of the split that the source draws from.
    start_step: of the first batch.
    is_wanted: whether the batch of a step needs them; they cost milliseconds each.

  Raises:
    UserError: the folder has no readable manifest; told with the first batch.

  Yields:
    The same batches; where wanted with cross_ground_truth u8[B, 2, H, W, 3], whose [:, s] shows the person of
    image[:, s] in the other stream's structure.
  """
  truths, sizes = _image_truths(root, paths), _sizes(config)

  def rendered(drawn: Mapping[str, np.ndarray]) -> np.ndarray:
    appearance, structure = drawn['image'], drawn['image'][:, ::-1]
    pairs = zip(appearance.ravel(), structure.ravel(), strict=True)
    images = [_seen(truths[who][0], truths[where][1], *sizes) for who, where in pairs]
    return np.stack(images).reshape(*appearance.shape, *sizes[1], 3)

  for step, batch in zip(itertools.count(start_step), batches, strict=False):
    # Arrays of the host, as the rest of the batch, until a feed moves them.
    given: dict[str, Any] = {'cross_ground_truth': rendered(sampler.batch(step))} if is_wanted(step) else {}
    yield dataclasses.replace(batch, **given)
