"""Trained networks as a library: embeddings, swaps, interpolations and rankings of arbitrary images.

Only a checkpoint is needed, no data set and no teacher. Every argument that takes images takes one or a list of paths,
PIL images and arrays (see `data.image_lists.as_image_list`) of any size; a folder stands for the images in it and its
subfolders, sorted by path. A file is turned upright as its Exif orientation says, as in training and evaluation.
"""

from collections.abc import Iterator
import dataclasses
import itertools
import numbers
import os

import numpy as np

from dgnet_jax.config.validation import shown
from dgnet_jax.data.image_lists import ImageList, as_image_list
from dgnet_jax.data.lazy_images import ImageSequence, ReorderedImages
from dgnet_jax.data.synthetic.examples import example_images
from dgnet_jax.errors import UserError
from dgnet_jax.gallery.build import BuildOptions
from dgnet_jax.gallery.embedder import Embedder, Images
from dgnet_jax.gallery.gallery import Gallery, Match, open_gallery
from dgnet_jax.inference.codes import interpolated, reordered
from dgnet_jax.inference.loading import BEST, Step, open_model
from dgnet_jax.inference.predictor import Codes

__all__ = ['BuildOptions', 'Gallery', 'Match', 'Model', 'example_images', 'load', 'open_gallery']

BATCH_SIZE = 8  # small: a single image takes as long as a batch, which matters on a laptop


class Model(Embedder):
  """The networks of a checkpoint. All results are deterministic functions of the images.

  Attributes:
    config: the run's config.
    workdir: the run's work folder, or the file that the model was read from.
    image_size_hw: height and width of generated images; input images are resized to it.
    num_identities: number of training identities.
    step: step of the checkpoint.
  """

  @property
  def batch_size(self) -> int:
    """Images per call of a network."""
    return self._predictor.batch_size

  def with_batch_size(self, batch_size: int) -> 'Model':
    """Returns a model of the same networks that computes as many images per call; they are not copied."""
    return Model(dataclasses.replace(self._predictor, batch_size=batch_size), self.config, self.workdir)

  def swap(self, *, structure_from: Images, appearance_from: Images, one_person: bool = False) -> np.ndarray:
    """Generates people in the clothes of others.

    Args:
      structure_from: images that give pose, position and background.
      appearance_from: images that give the clothes. The numbers of images must be equal, or one of them 1.
      one_person: all images of `appearance_from` show one person; every structure gets the clothes that they show
        together, such as the front in one and the back in another. Design adain averages their codes; with design
        correspondence, memory grows with their number.

    Returns:
      u8[N, H, W, 3], also for a single pair.

    Raises:
      UserError: the numbers of images do not fit, or the run has no generator.
    """
    images = self.iter_swap(structure_from=structure_from, appearance_from=appearance_from, one_person=one_person)
    return np.stack(list(images))

  def iter_swap(
    self, *, structure_from: Images, appearance_from: Images, one_person: bool = False
  ) -> Iterator[np.ndarray]:
    """Like `swap`, but yields the images u8[H, W, 3] one by one, in bounded memory.

    Raises:
      UserError: as in `swap`, raised at the call.
    """
    structures, appearances = as_image_list(structure_from), as_image_list(appearance_from)
    if one_person:
      return self._in_the_clothes_of_one(structures, appearances)
    count = max(len(structures), len(appearances))
    if {len(structures), len(appearances)} - {1, count}:
      raise UserError(
        f'{len(structures)} structures and {len(appearances)} appearances: the numbers must be equal, or one of them 1'
      )
    batches = self._predictor.swap_batches(
      structure_from=self._repeated(structures, count), appearance_from=self._repeated(appearances, count)
    )
    return itertools.chain.from_iterable(batches)

  def _in_the_clothes_of_one(self, structures: ImageList, appearances: ImageList) -> Iterator[np.ndarray]:
    """Returns every structure in the clothes that all appearances show together."""
    self._predictor.require_generator()
    shares = np.full((1, len(appearances)), 1 / len(appearances), np.float32)
    appearance = self._predictor.join_donors(self.appearance_code(appearances), shares, compete=True)
    size = self._predictor.batch_size

    def generated(start: int) -> np.ndarray:
      part = ImageList(structures.items[start : start + size])
      return self._predictor.decode(self.structure_code(part), reordered(appearance, np.zeros(len(part), int)))

    return itertools.chain.from_iterable(generated(start) for start in range(0, len(structures), size))

  def trace(self, *, structure_from: Images, appearance_from: Images) -> dict[str, np.ndarray]:
    """Says where the pixels of swaps come from; design correspondence only.

    Args:
      structure_from: N images.
      appearance_from: N images.

    Returns:
      Arrays image, mask, place, fetched and trust, as from `Predictor.trace`.

    Raises:
      UserError: the numbers of images differ, the run has no generator, or its design is another one.
    """
    structures, appearances = as_image_list(structure_from), as_image_list(appearance_from)
    if len(structures) != len(appearances):
      raise UserError(f'{len(structures)} structures and {len(appearances)} appearances: the numbers must be equal')
    return self._predictor.trace(structure_from=self._resized(structures), appearance_from=self._resized(appearances))

  def swap_grid(self, *, structure_from: Images, appearance_from: Images) -> np.ndarray:
    """Generates every structure with every appearance; every image is encoded once.

    Args:
      structure_from: N images.
      appearance_from: M images.

    Returns:
      u8[N, M, H, W, 3].
    """
    structures, appearances = as_image_list(structure_from), as_image_list(appearance_from)
    row, column = np.divmod(np.arange(len(structures) * len(appearances)), len(appearances))
    images = self._predictor.decode(
      reordered(self.structure_code(structures), row), reordered(self.appearance_code(appearances), column)
    )
    return images.reshape(len(structures), len(appearances), *images.shape[1:])

  def interpolate(self, *, structure_from: Images, appearance_from: Images, steps: int = 8) -> np.ndarray:
    """Interpolates between two appearances or two structures, linearly in their codes.

    With design correspondence, what is fetched from two appearances is mixed linearly, pixel by pixel, and the
    background changes linearly from one structure to the other.

    Args:
      structure_from: one image, or two to interpolate between.
      appearance_from: one image, or two to interpolate between. At least one of the arguments must have two.
      steps: number of images, at least 2; the first and the last equal the swaps at either end.

    Returns:
      u8[steps, H, W, 3].

    Raises:
      UserError: the number of images or of steps is not allowed, or the run has no generator.
    """
    structures, appearances = as_image_list(structure_from), as_image_list(appearance_from)
    counts = len(structures), len(appearances)
    if not set(counts) <= {1, 2} or counts == (1, 1) or steps < 2:
      raise UserError(
        f'cannot interpolate between {counts[0]} structures and {counts[1]} appearances in {steps} steps: give two '
        'images for one of them, one or two for the other, and at least 2 steps'
      )
    weight = np.linspace(0, 1, steps, dtype=np.float32)
    structure, appearance = self.structure_code(structures), self.appearance_code(appearances)
    shares = np.stack([1 - weight, weight], axis=1) if len(appearances) == 2 else np.ones((steps, 1), np.float32)
    mixed = self._predictor.join_donors(appearance, shares, compete=False)
    return self._predictor.decode(interpolated(structure, weight), mixed)

  def structure_code(self, images: Images) -> Codes:
    """Encodes pose, position and background of images: a pytree of arrays with a leading axis N."""
    return self._predictor.structure_codes(self._resized(as_image_list(images)))

  def appearance_code(self, images: Images) -> Codes:
    """Encodes the clothes on images: a pytree of arrays with a leading axis N."""
    return self._predictor.appearance_codes(self._resized(as_image_list(images)))

  def decode(self, structure_code: Codes, appearance_code: Codes) -> np.ndarray:
    """Generates images from codes of equal number.

    Args:
      structure_code: from `structure_code`.
      appearance_code: from `appearance_code`.

    Returns:
      u8[N, H, W, 3].
    """
    return self._predictor.decode(structure_code, appearance_code)

  def activation(self, images: Images) -> np.ndarray:
    """Measures how strongly the re-id backbone responds at each pixel: f32[N, H, W], at least 0."""
    return self._predictor.activation(self._resized(as_image_list(images)))

  def _repeated(self, images: ImageList, count: int) -> ImageSequence:
    """Returns the resized images; a single image `count` times, read once."""
    resized = self._resized(images)
    return resized if len(images) == count else ReorderedImages(resized[:], np.zeros(count, int))


def _is_whole(value: object) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def load(path: str | os.PathLike[str], *, batch_size: int = BATCH_SIZE, step: Step = None) -> Model:
  """Loads a trained model. Training data are not needed.

  Args:
    path: work folder of a run (its newest valid checkpoint), one checkpoint, `<workdir>/checkpoints/<step>`, or a file
      that `dgnet export RUN --out=FILE.safetensors` wrote. 'synthetic' is the model that comes with the package, one
      of the built-in pedestrians, unless there is a folder of that name.
    batch_size: images per call of a network. Smaller inputs are padded to it, so that every function is compiled once;
      accelerators prefer larger values.
    step: step of a checkpoint in the work folder, or 'best': that with the best mAP of those that were evaluated during
      training (`evaluation.every_steps`). None is the newest.

  Raises:
    UserError: there is no such checkpoint at `path`, it is damaged, or an argument is of another kind.
  """
  if not _is_whole(batch_size) or batch_size < 1:
    raise UserError(f'batch_size={shown(batch_size)} must be a whole number of at least 1')
  if step is not None and step != BEST and not _is_whole(step):
    raise UserError(f'step={shown(step)} must be a whole number, {BEST!r} or None')
  return Model(*open_model(path, batch_size=int(batch_size), step=step))
