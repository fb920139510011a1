"""The map of a run's test images: which of them, in what colours."""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt

from dgnet_jax.api import Model
from dgnet_jax.data.image_lists import ImageList
from dgnet_jax.data.index import DISTRACTOR, DatasetIndex, Split
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.tsne import MIN_IMAGES, tsne_map
from dgnet_jax.plots.embedding_map import MAX_GROUPS, Groups, draw_embedding_map, spread_places
from dgnet_jax.utils.extras import require_scikit_learn


@dataclasses.dataclass(frozen=True)
class MapOptions:
  """What is on a map.

  Attributes:
    images: at most; 0 draws no map.
    identities: to colour.
    perplexity: as for `tsne_map`.
    thumbnails: images to show in a panel of their own, at most; 0 draws no such panel.
    seed: of the choice of images and of t-SNE.

  Raises:
    UserError: a value is not allowed, or scikit-learn is not installed.
  """

  images: int = 2000
  identities: int = 12
  perplexity: float | None = None
  thumbnails: int = 0
  seed: int = 0

  def __post_init__(self) -> None:
    if self.identities > MAX_GROUPS:
      raise UserError(f'--identities={self.identities}: at most {MAX_GROUPS} can be told apart by colour and marker')
    if self.images:
      require_scikit_learn('the map of embeddings', 'or leave it out with --images=0')


def choose_images(split: Split, *, count: int, identities: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Chooses the images of a map: all of the coloured identities as far as they fit, then any others but junk.

  Args:
    split: N images.
    count: images to choose, at most.
    identities: to colour, evenly spread.
    seed: of the order of the others.

  Returns:
    i64[at most count] indices of images, and the coloured identities in ascending order.
  """
  coloured = split.identity[split.one_per_identity(identities)]
  order = np.random.default_rng(seed).permutation(np.flatnonzero(split.identity >= DISTRACTOR))
  is_coloured = np.isin(split.identity[order], coloured)
  return np.concatenate([order[is_coloured], order[~is_coloured]])[:count], coloured


def check_map(split: Split, options: MapOptions) -> None:
  """Raises UserError if the map of a split cannot be drawn."""
  num_images = min(options.images, int((split.identity >= DISTRACTOR).sum()))
  if num_images < MIN_IMAGES:
    raise UserError(f'a map needs at least {MIN_IMAGES} images, not {num_images}; leave it out with --images=0')
  if options.perplexity is not None and options.perplexity >= num_images:
    raise UserError(f'--perplexity={options.perplexity:g}: must be less than the number of images, {num_images}')


def write_map(
  path: pathlib.Path, model: Model, index: DatasetIndex, split: Split, embeddings: Embeddings, options: MapOptions
) -> dict[str, Any]:
  """Draws the map of embeddings.

  Args:
    path: the PNG file to write.
    model: reads the thumbnails.
    index: names identities and cameras.
    split: the images of the embeddings, which `check_map` accepts.
    embeddings: of the split.
    options: what is on the map.

  Returns:
    What is drawn, as JSON: images, coloured identities, perplexity, divergence and seed.
  """
  chosen, coloured = choose_images(split, count=options.images, identities=options.identities, seed=options.seed)
  found = tsne_map(embeddings.features[chosen], seed=options.seed, perplexity=options.perplexity)
  shown = spread_places(found.places, options.thumbnails)
  drawn = {
    'images': len(chosen),
    'identities': len(coloured),
    'perplexity': found.perplexity,
    'divergence': found.divergence,
    'seed': options.seed,
  }
  draw_embedding_map(
    path,
    found.places,
    [
      _groups('identity', split.identity[chosen], coloured, index.identity_names),
      _groups('camera', split.camera[chosen], np.unique(split.camera[chosen]), index.camera_names),
    ],
    title=f'{describe_map(drawn)}: {model.workdir.resolve().name}, step {model.step:,}',
    thumbnails=model.pixels(ImageList([split.paths[chosen[i]] for i in shown])) if len(shown) else None,
    thumbnail_places=found.places[shown],
  )
  return drawn


def describe_map(drawn: Mapping[str, Any]) -> str:
  """Says what a map shows, from what `write_map` returned."""
  return (
    f't-SNE of {drawn["images"]:,} test images, {drawn["identities"]} people coloured, '
    f'perplexity {drawn["perplexity"]:.3g}, seed {drawn["seed"]}, KL divergence {drawn["divergence"]:.2f}'
  )


def _groups(title: str, labels: npt.NDArray[np.integer], wanted: np.ndarray, names: Mapping[int, str]) -> Groups:
  """Divides images by their labels; those without a group of their own are the others."""
  numbers = wanted[:MAX_GROUPS].tolist()
  of_image = np.full(len(labels), -1)
  for group, number in enumerate(numbers):
    of_image[labels == number] = group
  return Groups(f'by {title}', [names.get(number, str(number)) for number in numbers], of_image)
