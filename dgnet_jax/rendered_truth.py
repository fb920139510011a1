"""The true pictures of built-in pedestrians in other photos' structures, and where their garments are."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from dgnet_jax.data.synthetic import Appearance, Structure, photo_truth, render
from dgnet_jax.data.synthetic_people import WHOLE

DARK = (0, 0, 0)
LIT = 160  # grey level of a garment that is looked for; the brightest camera does not clip it


@dataclasses.dataclass(frozen=True)
class RenderedTruth:
  """N true pictures at the size that networks see.

  pictures: u8[N, H, W, 3]. plain: u8[N, H, W, 3], the same with a plain top in its main colour. light: u8[N, 3, H, W],
  what sleeves, body of the top, and bottom in a middle grey add to black ones: their share of each pixel and their
  shading. patterned: bool[N], whether the top has a pattern.
  """

  pictures: np.ndarray
  plain: np.ndarray
  light: np.ndarray
  patterned: np.ndarray

  def _is_lit(self, light: np.ndarray) -> np.ndarray:
    """Where `light` is above half of the most that any garment of that picture has."""
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


def _render_one(person: Appearance, structure: Structure, drawn_hw: tuple[int, int], size_hw: tuple[int, int]) -> tuple:
  """Picture, plain picture and light of one truth."""

  def seen(look: Appearance) -> np.ndarray:
    # Resized as a photo is when it is read.
    picture = Image.fromarray(render(look, structure, drawn_hw))
    return np.asarray(picture.resize(size_hw[::-1], Image.Resampling.BICUBIC))

  picture = seen(person)
  plain = picture if person == _plain(person) else seen(_plain(person))
  # Sensor noise belongs to the structure, so that these two differ by the garments alone: each in a channel of its own.
  dark = dataclasses.replace(person, top_colour=DARK, top_second_colour=DARK, bottom_colour=DARK)
  lit = dataclasses.replace(
    person, pattern=WHOLE, top_colour=(LIT, 0, 0), top_second_colour=(0, LIT, 0), bottom_colour=(0, 0, LIT)
  )
  light = np.clip(seen(lit).astype(int) - seen(dark), 0, 255).astype(np.uint8)
  return picture, plain, np.moveaxis(light, -1, 0)


def render_truth(
  config: Any, root: str, paths: Sequence[str], structure_from: np.ndarray, appearance_from: np.ndarray
) -> RenderedTruth:
  """The true pictures of one photo's person in another photo's structure.

  Args:
    config: of the run; the data are the built-in pedestrians.
    root: of the data set.
    paths: of its photos.
    structure_from: i64[N > 0], indices into `paths`.
    appearance_from: i64[N], likewise.
  """
  known = photo_truth(root)
  truths = [known[pathlib.PurePath(os.path.relpath(path, root)).as_posix()] for path in paths]
  sizes = tuple(config.data.synthetic.image_size_hw), tuple(config.data.image_size_hw)
  people = [truths[i][0] for i in appearance_from]
  made = [_render_one(who, truths[where][1], *sizes) for who, where in zip(people, structure_from, strict=True)]
  pictures, plain, light = map(np.stack, zip(*made, strict=True))
  return RenderedTruth(pictures, plain, light, np.array([person != _plain(person) for person in people]))
