"""A trained network as a library: embeddings, swaps, interpolations and rankings of anybody's images.

Neither a data set nor a teacher is needed, only a checkpoint. Everywhere an image is a path, a PIL image or an array
(`data.given.collect` says which), of any size; one or a list; a folder stands for its images, sorted by name. A file
gives the numbers that evaluation gives it. The orientation that cameras note in their files is not applied, as in
training: turn such images upright first.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config.loading import complete_config
from dgnet_jax.config.schema import Config
from dgnet_jax.data.image_lists import Given, collect
from dgnet_jax.data.lazy_images import Chosen, Pixels
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.ranking import FINE_ONLY
from dgnet_jax.inference import codes
from dgnet_jax.inference.trained import Trained, restore_trained
from dgnet_jax.training.checkpoints import Checkpoints

BATCH_SIZE = 8  # one image costs as much as a batch, which matters on a laptop


@dataclasses.dataclass(frozen=True)
class Match:
  """A gallery image as a query's match.

  path: '' where the image came as an image or an array. score: -1 to 1, 1 for the same image. index: in the
  gallery.
  """

  path: str
  score: float
  index: int


@dataclasses.dataclass(frozen=True, eq=False)
class Gallery:
  """Images to search, embedded once for any number of rankings: what `Model.gallery` makes.

  paths: as in `Match`. embeddings: f32[N, D].
  """

  paths: tuple[str, ...]
  embeddings: np.ndarray


class Model:
  """The networks of a checkpoint. What it makes depends on the images alone: nothing is drawn.

  config: of the run. workdir: the run's folder. image_size_hw: of the images that it makes; those given are resized
  to it. num_identities: people it was trained on. step: of the checkpoint.

  Args:
    trained: networks and parameters.
    config: of the run.
    workdir: of the run.
  """

  def __init__(self, trained: Trained, config: Config, workdir: pathlib.Path) -> None:
    self._trained = trained
    self.config = config
    self.workdir = workdir
    self.image_size_hw: tuple[int, int] = config.data.image_size_hw
    self.num_identities = trained.num_identities
    self.step = trained.step

  def __repr__(self) -> str:
    height, width = self.image_size_hw
    return f'<DG-Net of {self.num_identities} people, step {self.step}, images {height}x{width}, {self.workdir}>'

  def embed(self, images: Any) -> np.ndarray:
    """Embeddings by which people are told apart.

    Args:
      images: one or more images.

    Returns:
      f32[N, D], also of one image: the primary half, then the fine-grained one, each of length 1. Other styles of
      re-id network have one piece, or one for each part.

    Raises:
      UserError: images cannot be read; names them. Likewise everywhere here.
    """
    return self._trained.embed(self._pixels(collect(images)))

  def swap(self, *, structure_from: Any, appearance_from: Any) -> np.ndarray:
    """People in the clothes of others.

    Args:
      structure_from: images that give pose, place and background.
      appearance_from: as many that give the clothes; one serves all, in both arguments.

    Returns:
      u8[N, H, W, 3], also of one pair.

    Raises:
      UserError: also when the numbers of images differ and neither is one.
    """
    return np.stack(list(self.iter_swap(structure_from=structure_from, appearance_from=appearance_from)))

  def iter_swap(self, *, structure_from: Any, appearance_from: Any) -> Iterator[np.ndarray]:
    """Like `swap`, of any number of images in bounded memory: yields u8[H, W, 3]."""
    structures, appearances = collect(structure_from), collect(appearance_from)
    count = max(len(structures), len(appearances))
    if {len(structures), len(appearances)} - {1, count}:
      raise UserError(
        f'{len(structures)} structures and {len(appearances)} appearances: as many of both, or one of either'
      )
    sources = [self._repeated(given, count) for given in (structures, appearances)]
    for batch in self._trained.swap_images(*sources):
      yield from batch

  def swap_grid(self, *, structure_from: Any, appearance_from: Any) -> np.ndarray:
    """Every appearance on every structure: u8[structures, appearances, H, W, 3]; arguments as of `swap`."""
    structure, appearance = self.structure_code(structure_from), self.appearance_code(appearance_from)
    row, column = np.divmod(np.arange(len(structure) * len(appearance)), len(appearance))
    made = self._decode(Chosen(structure, row), Chosen(appearance, column))
    return made.reshape(len(structure), len(appearance), *made.shape[1:])

  def interpolate(self, *, structure_from: Any, appearance_from: Any, steps: int = 8) -> np.ndarray:
    """The way from one image's appearance or structure to another's, in equal steps of the code.

    Args:
      structure_from: an image, or two: from the first one's pose to the second's.
      appearance_from: an image, or two: from the first one's clothes to the second's. Two here, in `structure_from` or
        in both.
      steps: images in all, at least 2; the first and the last are the swaps with either end.

    Returns:
      u8[steps, H, W, 3].

    Raises:
      UserError: also when there are not one or two images, or one of both.
    """
    structures, appearances = collect(structure_from), collect(appearance_from)
    counts = len(structures), len(appearances)
    if not set(counts) <= {1, 2} or counts == (1, 1) or steps < 2:
      raise UserError(
        f'{counts[0]} structures, {counts[1]} appearances, {steps} steps: two images of either, one or '
        'two of the other, and at least 2 steps'
      )
    share = np.linspace(0, 1, steps, dtype=np.float32)
    structure, appearance = self.structure_code(structures), self.appearance_code(appearances)
    return self._decode(_between(structure, share), _between(appearance, share))

  def rank(
    self, queries: Any, gallery: Any, *, alpha: float | None = None, count: int | None = None
  ) -> list[list[Match]]:
    """Searches images for people, the likest first.

    Args:
      queries: images of people to find.
      gallery: images to search, commonly a folder; or what `gallery` made of them.
      alpha: weight of the embedding's fine-grained half: 0 is the primary half alone, -1 the fine-grained alone; by
        default the run's `evaluation.alpha`. Only style AB has two halves.
      count: how many to give; all by default.

    Returns:
      A list of matches for each query, also of one query; those of equal score in the order of the gallery.

    Raises:
      UserError: also when alpha or count make no sense.
    """
    weights = self._weights(alpha)
    if count is not None and count < 1:
      raise UserError(f'{count=} must be at least 1')
    queries = collect(queries, 'queries')
    searched = gallery if isinstance(gallery, Gallery) else collect(gallery, 'gallery')
    pieces = self._trained.embed(self._pixels(queries), what='embedding the queries')
    pieces = pieces.reshape(len(queries), len(weights), -1) * (weights / weights.sum())[:, None]
    searched = searched if isinstance(searched, Gallery) else self.gallery(searched)
    found = []
    for query in pieces.reshape(len(queries), -1):
      scores = searched.embeddings @ query
      order = np.argsort(-scores, kind='stable')[:count]
      found.append([Match(searched.paths[i], float(scores[i]), int(i)) for i in order])
    return found

  def gallery(self, images: Any) -> Gallery:
    """Embeds images that `rank` is to search more than once."""
    given = collect(images, 'gallery')
    return Gallery(given.paths, self._trained.embed(self._pixels(given), what='embedding the gallery'))

  def structure_code(self, images: Any) -> np.ndarray:
    """What is kept of an image that gives the structure: f32[N, h, w, C]."""
    model = self._trained
    return codes.structure_codes(
      model.networks, model.generator, self._pixels(collect(images)), model.batch_size, model.mesh
    )

  def appearance_code(self, images: Any) -> np.ndarray:
    """What is kept of an image that gives the appearance: f32[N, F]."""
    model = self._trained
    return codes.appearance_codes(
      model.networks, model.reid, model.reid_stats, self._pixels(collect(images)), model.batch_size, model.mesh
    )

  def decode(self, structure_code: np.ndarray, appearance_code: np.ndarray) -> np.ndarray:
    """Images u8[N, H, W, 3] of codes f32[N, h, w, C] and f32[N, F]."""
    return self._decode(np.asarray(structure_code), np.asarray(appearance_code))

  def activation(self, images: Any) -> np.ndarray:
    """What the re-id network looks at: f32[N, h, w], the length of its last map's vectors at each place."""
    model = self._trained
    return codes.activation(
      model.networks, model.reid, model.reid_stats, self._pixels(collect(images)), model.batch_size, model.mesh
    )

  def pixels(self, images: Any) -> np.ndarray:
    """Images as the networks see them: u8[N, H, W, 3]."""
    return self._pixels(collect(images))[:]

  def _pixels(self, given: Given) -> Pixels:
    return given.resized(self.image_size_hw)

  def _repeated(self, given: Given, count: int) -> Pixels:
    """The images; a single one `count` times, read once."""
    return self._pixels(given) if len(given) == count else Chosen(self._pixels(given)[:], np.zeros(count, int))

  def _decode(self, structure_code: Pixels, appearance_code: Pixels) -> np.ndarray:
    model = self._trained
    batches = codes.decode(
      model.networks, model.generator, structure_code, appearance_code, model.batch_size, model.mesh
    )
    return np.concatenate(list(batches))

  def _weights(self, alpha: float | None) -> np.ndarray:
    """f32[pieces], what each piece of the embedding counts for."""
    reid = self.config.reid
    if reid.style != 'AB':
      if alpha is not None:
        raise UserError(f'{alpha=} weighs the fine-grained half, and style {reid.style} has none')
      return np.ones(reid.num_parts if reid.style == 'PCB' else 1, np.float32)
    alpha = self.config.evaluation.alpha if alpha is None else alpha
    if alpha != FINE_ONLY and not 0 <= alpha < np.inf:
      raise UserError(f'{alpha=} is neither a weight of at least 0 nor {FINE_ONLY:g} (the fine-grained half alone)')
    return np.array([0, 1] if alpha == FINE_ONLY else [1, alpha], np.float32)


def _between(code: np.ndarray, share: np.ndarray) -> np.ndarray:
  """f32[steps, ...] from the first to the last of one or two codes; exact at the ends."""
  share = share.reshape(-1, *[1] * (code.ndim - 1))
  return (1 - share) * code[0] + share * code[-1]


def load(path: str | os.PathLike[str], *, batch_size: int = BATCH_SIZE) -> Model:
  """The model of a training run, as it was saved; what it was trained on need not be there.

  Args:
    path: a run's work folder (its newest whole checkpoint), or one of its checkpoints, `<workdir>/checkpoints/<step>`.
    batch_size: images at a time. Every call is padded to it, so that each function is compiled once; accelerators
      like more.

  Raises:
    UserError: it is neither, or it is damaged.
  """
  if batch_size < 1:
    raise UserError(f'{batch_size=} must be at least 1')
  workdir, folder, step = find_checkpoints(path)
  with contextlib.closing(Checkpoints(folder)) as checkpoints:
    if checkpoints.latest_step() is None:
      raise UserError(f'{folder}: no checkpoint in it')
    config = complete_config(checkpoints.saved_config(step))
    return Model(restore_trained(config, checkpoints, batch_size=batch_size, step=step), config, workdir)


def find_checkpoints(path: str | os.PathLike[str]) -> tuple[pathlib.Path, pathlib.Path, int | None]:
  """The work folder, its folder of checkpoints, and the step that `path` names; None is the newest.

  Raises:
    UserError: it names none of them.
  """
  path = pathlib.Path(path)
  if (path / 'checkpoints').is_dir():
    return path, path / 'checkpoints', None
  if path.is_dir() and path.name == 'checkpoints':
    return path.parent, path, None
  if path.is_dir() and path.name.isdigit():
    return path.absolute().parent.parent, path.absolute().parent, int(path.name)
  what = 'no work folder of a run, and no checkpoint in one' if path.exists() else 'no such folder'
  raise UserError(f'{path}: {what} (a run holds checkpoints/<step>)')
