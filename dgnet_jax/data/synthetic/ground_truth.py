"""Rendered ground truth of generated images: one image's person in another image's structure."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import itertools
import os
import pathlib
from typing import Any, cast

import numpy as np
from PIL import Image

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.sampling import PairSampler
from dgnet_jax.data.synthetic.manifest import image_descriptions
from dgnet_jax.data.synthetic.people import FILLED, Appearance, Structure
from dgnet_jax.data.synthetic.rendering import render
from dgnet_jax.types import PixelBatch

BLACK = (0, 0, 0)
LIT = 160  # grey level of a garment whose pixels are measured; the brightest camera does not clip it


@dataclasses.dataclass(frozen=True)
class RenderedGroundTruth:
  """N ground-truth images at the networks' input size.

  Attributes:
    images: u8[N, H, W, 3].
    plain: u8[N, H, W, 3], the same with a plain top in its main colour.
    light: u8[N, 3, H, W], the difference between grey and black sleeves, body of the top, and bottom: each garment's
      share of a pixel, and its shading.
    patterned: bool[N], True if the top has a pattern.
  """

  images: np.ndarray
  plain: np.ndarray
  light: np.ndarray
  patterned: np.ndarray

  def _is_lit(self, light: np.ndarray) -> np.ndarray:
    """Returns where `light` exceeds half of the image's maximum over all garments."""
    lit: np.ndarray = 2 * light > self.light.max(axis=(1, 2, 3))[:, None, None]
    return lit

  @property
  def garments(self) -> np.ndarray:
    """bool[N, 2, H, W]: where top and bottom are visible."""
    sleeves, body, bottom = np.moveaxis(self.light.astype(int), 1, 0)
    return np.stack([self._is_lit(sleeves + body), self._is_lit(bottom)], axis=1)

  @property
  def body(self) -> np.ndarray:
    """bool[N, H, W]: where a pattern of the top would be visible; sleeves have no pattern."""
    return self._is_lit(self.light[:, 1].astype(int))


def _with_plain_top(appearance: Appearance) -> Appearance:
  return dataclasses.replace(appearance, pattern='plain')


class GroundTruthRenderer:
  """Renders images of a data set's people in the structures of its images.

  Args:
    data_config: section `data` of the config; the data are the built-in pedestrians.
    root: folder of the data set.
    paths: paths of its images, to which indices refer.

  Raises:
    UserError: the manifest of the data set is missing or damaged.
  """

  def __init__(self, data_config: DataConfig, root: str, paths: Sequence[str]) -> None:
    descriptions = image_descriptions(root)
    self._images = [descriptions[pathlib.PurePath(os.path.relpath(path, root)).as_posix()] for path in paths]
    self._file_size_hw = data_config.synthetic.image_size_hw
    self._image_size_hw = data_config.image_size_hw

  def _render(self, appearance: Appearance, structure: Structure) -> np.ndarray:
    """Renders at the size of the files and resizes like `images.read_image`; u8[H, W, 3]."""
    image = Image.fromarray(render(appearance, structure, self._file_size_hw))
    return np.asarray(image.resize(self._image_size_hw[::-1], Image.Resampling.BICUBIC))

  def images(self, *, structure_from: np.ndarray, appearance_from: np.ndarray) -> np.ndarray:
    """Renders the appearance of some images in the structure of others.

    Args:
      structure_from: i64[...], indices of the structure donors.
      appearance_from: i64[...], indices of the appearance donors, same shape.

    Returns:
      u8[..., H, W, 3].
    """
    donors = zip(appearance_from.ravel(), structure_from.ravel(), strict=True)
    images = [self._render(self._images[a].appearance, self._images[s].structure) for a, s in donors]
    return np.stack(images).reshape(*appearance_from.shape, *self._image_size_hw, 3)

  def with_garments(self, *, structure_from: np.ndarray, appearance_from: np.ndarray) -> RenderedGroundTruth:
    """Does what `images` does for i64[N > 0], and also locates the garments."""
    appearances = [self._images[i].appearance for i in appearance_from]
    structures = [self._images[i].structure for i in structure_from]
    rendered = [self._with_garments(a, s) for a, s in zip(appearances, structures, strict=True)]
    images, plain, light = map(np.stack, zip(*rendered, strict=True))
    patterned = np.array([appearance != _with_plain_top(appearance) for appearance in appearances])
    return RenderedGroundTruth(images, plain, light, patterned)

  def _with_garments(self, appearance: Appearance, structure: Structure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns image, plain image and light of one `RenderedGroundTruth`."""
    image = self._render(appearance, structure)
    without_pattern = _with_plain_top(appearance)
    plain = image if appearance == without_pattern else self._render(without_pattern, structure)
    # Sensor noise belongs to the structure, so these two differ only by the garments, each in its own channel.
    dark = dataclasses.replace(appearance, top_colour=BLACK, top_second_colour=BLACK, bottom_colour=BLACK)
    lit = dataclasses.replace(
      appearance, pattern=FILLED, top_colour=(LIT, 0, 0), top_second_colour=(0, LIT, 0), bottom_colour=(0, 0, LIT)
    )
    difference = self._render(lit, structure).astype(int) - self._render(dark, structure)
    return image, plain, np.moveaxis(np.clip(difference, 0, 255).astype(np.uint8), -1, 0)


def with_cross_ground_truth(
  batches: Iterator[PixelBatch],
  sampler: PairSampler,
  renderer: GroundTruthRenderer,
  *,
  start_step: int,
  is_needed: Callable[[int], bool],
) -> Iterator[PixelBatch]:
  """Adds the ground truth of the cross images to a source's batches (`teaching.images`).

  Args:
    batches: batches of a source from `start_step` on.
    sampler: the source's sampler of pairs.
    renderer: renderer of the images that the source draws from.
    start_step: step of the first batch.
    is_needed: returns True if the batch of a step needs the ground truth, which takes milliseconds per image.

  Yields:
    The same batches; if needed with cross_ground_truth u8[B, 2, H, W, 3], whose [:, s] shows the person of image[:, s]
    in the structure of the other stream's image.
  """
  for step, batch in zip(itertools.count(start_step), batches, strict=False):
    if is_needed(step):
      image = sampler.batch(step)['image']
      rendered = renderer.images(structure_from=image[:, ::-1], appearance_from=image)
      # A numpy array until a feed moves it to the devices.
      batch = dataclasses.replace(batch, cross_ground_truth=cast(Any, rendered))
    yield batch
