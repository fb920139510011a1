"""Sheets of test people in each other's clothes, and the images on them."""

from collections.abc import Iterable, Iterator, Sequence
import hashlib
import logging
import os
import pathlib
import shutil
import tempfile

import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.index import DatasetIndex, Split
from dgnet_jax.data.lazy_images import ImageFiles, ReorderedImages
from dgnet_jax.generation.manifest import FILE_NAME, write_manifest
from dgnet_jax.inference.loading import Step, load_predictor
from dgnet_jax.inference.predictor import Predictor
from dgnet_jax.inference.results import HASH_DIGITS, results_folder
from dgnet_jax.plots.sheets import swap_sheet
from dgnet_jax.utils.writers import save_image

logger = logging.getLogger(__name__)

MANIFEST_FIELDS = ('file', 'appearance_identity', 'appearance_from', 'structure_identity', 'structure_from')


def generate_sheets(config: Config, workdir: str | pathlib.Path, *, step: Step = None) -> pathlib.Path:
  """Generates every query identity in the structure of a few others.

  The identities are represented by one query image each. `evaluation.num_swaps` of them, evenly spread, are the
  structure donors (pose, position, background); every identity is the appearance donor of one image per structure.
  A sheet shows `evaluation.num_swaps` appearance donors. The manifest is written last, so a folder with a manifest is
  complete. A complete folder of other people or pairs is moved to `<workdir>/generated/earlier`.

  Args:
    config: the run's validated config.
    workdir: the run's work folder.
    step: which checkpoint.

  Returns:
    The folder, `<workdir>/generated/step_<step>` (or a subfolder per data set, see `results_folder`):
    `sheet_<n>.png`, `images/<identity>_in_<structure identity>.png` and `manifest.csv`, whose source paths are relative
    to the data set's root.

  Raises:
    UserError: the data set or the checkpoint is missing or damaged, or they do not fit the config.
  """
  workdir = pathlib.Path(workdir)
  index = open_dataset(config.data, workdir, needs=('query',))
  predictor = load_predictor(config, workdir, step=step)
  folder = results_folder(config, index, workdir, 'generated') / f'step_{predictor.step:07d}'
  query, per_sheet = index.query, config.evaluation.num_swaps
  appearance_donors, structure_donors = query.one_per_identity(), query.one_per_identity(per_sheet)
  appearances = ImageFiles([query.paths[i] for i in appearance_donors], config.data.image_size_hw)[:]
  # Every structure donor is an appearance donor too, with the same image.
  structures = appearances[np.searchsorted(query.identity[appearance_donors], query.identity[structure_donors])]
  appearance, structure = np.divmod(np.arange(len(appearances) * len(structures)), len(structures))
  sources = list(zip(appearance_donors[appearance], structure_donors[structure], strict=True))
  names = [f'{query.identity[a]:04d}_in_{query.identity[s]:04d}.png' for a, s in sources]

  batches = predictor.swap_batches(
    structure_from=ReorderedImages(structures, structure), appearance_from=ReorderedImages(appearances, appearance)
  )
  num_images = num_sheets = 0
  rows = [_manifest_row(name, index, donors) for name, donors in zip(names, sources, strict=True)]
  _move_others_away(folder, rows)
  for images in _regrouped(batches, per_sheet * len(structures)):
    for image in images:
      save_image(folder / 'images' / names[num_images], image)
      num_images += 1
    grid = images.reshape(-1, len(structures), *images.shape[1:]).swapaxes(0, 1)
    top = appearances[num_sheets * per_sheet :][: grid.shape[1]]
    save_image(folder / f'sheet_{num_sheets:03d}.png', swap_sheet(structures, top, grid))
    num_sheets += 1
  write_manifest(folder / FILE_NAME, MANIFEST_FIELDS, rows)
  logger.info(f'{num_images} images, {num_sheets} sheets and {FILE_NAME} in {folder}')
  return folder


def write_swap_sheet(path: pathlib.Path, split: Split, predictor: Predictor, num_people: int) -> pathlib.Path:
  """Writes a sheet of people in each other's clothes; on its diagonal everybody wears their own.

  Args:
    path: the PNG file to write.
    split: the split to take the people from.
    predictor: generates the images.
    num_people: maximum number of rows and columns.

  Returns:
    The path.
  """
  chosen = split.one_per_identity(num_people)
  images = ImageFiles([split.paths[i] for i in chosen], predictor.networks.image_size_hw)[:]
  rows, columns = np.divmod(np.arange(len(images) ** 2), len(images))
  swapped = predictor.swap(
    structure_from=ReorderedImages(images, rows), appearance_from=ReorderedImages(images, columns)
  )
  return save_image(path, swap_sheet(images, images, swapped.reshape(len(images), *images.shape)))


def _move_others_away(folder: pathlib.Path, rows: Sequence[Sequence[str]]) -> None:
  """Moves a complete folder whose manifest does not have these rows to `earlier`, beside it."""
  path = folder / FILE_NAME
  if not path.exists():
    return
  with tempfile.TemporaryDirectory() as scratch:
    write_manifest(pathlib.Path(scratch) / FILE_NAME, MANIFEST_FIELDS, rows)
    new = (pathlib.Path(scratch) / FILE_NAME).read_bytes()
  old = path.read_bytes()
  if old == new:
    return
  kept = folder.parent / 'earlier' / f'{folder.name}_{hashlib.sha256(old).hexdigest()[:HASH_DIGITS]}'
  if kept.exists():
    shutil.rmtree(kept)  # the same pairs, generated earlier by the same step
  kept.parent.mkdir(exist_ok=True)
  folder.rename(kept)
  logger.info(f'earlier images: {kept}')


def _regrouped(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
  """Yields the rows of the batches in groups of `size`; the last group may be smaller."""
  waiting: list[np.ndarray] = []
  for batch in batches:
    waiting.append(batch)
    while sum(map(len, waiting)) >= size:
      rows = np.concatenate(waiting)
      yield rows[:size]
      waiting = [rows[size:]]
  rest = np.concatenate(waiting)
  if len(rest):
    yield rest


def _manifest_row(name: str, index: DatasetIndex, donors: Sequence[int]) -> list[str]:
  """Returns an image's row of the manifest; `donors` are its appearance and structure donor in the query split."""
  row = [f'images/{name}']
  for donor in donors:
    row += [str(index.query.identity[donor]), os.path.relpath(index.query.paths[donor], index.root)]
  return row
