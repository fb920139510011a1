"""Images from a trained run: every test person in the pose of each of a few others, or a large set (`bulk`)."""

from collections.abc import Iterable, Iterator, Sequence
import csv
import logging
import os
import pathlib

import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.lazy_images import Chosen, ImageFiles
from dgnet_jax.generation.bulk import generate_set
from dgnet_jax.inference.trained import load_trained, one_image_each, results_folder
from dgnet_jax.plots import sheets
from dgnet_jax.utils.atomic_files import whole_file

logger = logging.getLogger(__name__)


MANIFEST_FIELDS = ('file', 'appearance_identity', 'appearance_from', 'structure_identity', 'structure_from')


def _in_runs(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
  """The same images in runs of `size`; the last may be shorter."""
  waiting: list[np.ndarray] = []
  for batch in batches:
    waiting.append(batch)
    while sum(map(len, waiting)) >= size:
      joined = np.concatenate(waiting)
      yield joined[:size]
      waiting = [joined[size:]]
  rest = np.concatenate(waiting)
  if len(rest):
    yield rest


def generate(config: Config, workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes a folder of generated images and a manifest that says who gave what, as config.generation.plan says.

  Of `generation.plan`, images and identities are work for `bulk.generate_set`. With sheets, the people are those of the
  query split, one image each. `evaluation.num_swaps` of them, evenly spread, give the structures (pose, place,
  background); everybody gives the appearance (clothes) for one image per structure. A sheet shows
  `evaluation.num_swaps` people. The manifest is written last: a folder that has one is complete.

  Args:
    config: of the run, validated.
    workdir: of the run.

  Returns:
    The folder, `<workdir>/generated/step_<step>` (or as `results_folder` says): `sheet_<n>.png`,
    `images/<identity>_in_<structure identity>.png` and `manifest.csv`, in which the paths of the sources are relative
    to the data set's folder.

  Raises:
    UserError: data set or checkpoint are missing, damaged or do not fit; says which.
  """
  if config.generation.plan != 'sheets':
    return generate_set(config, workdir)
  workdir = pathlib.Path(workdir)
  index = open_dataset(config, workdir, needs=('query',))
  trained = load_trained(config, workdir)
  folder = results_folder(config, index, workdir, 'generated') / f'step_{trained.step:07d}'
  query, per_sheet = index.query, config.evaluation.num_swaps
  people, places = one_image_each(query), one_image_each(query, per_sheet)
  images = ImageFiles([query.paths[i] for i in people], config.data.image_size_hw)[:]
  structures = images[np.searchsorted(query.identity[people], query.identity[places])]
  donor, place = np.divmod(np.arange(len(people) * len(places)), len(places))
  names = [
    f'{query.identity[people[d]]:04d}_in_{query.identity[places[p]]:04d}.png' for d, p in zip(donor, place, strict=True)
  ]

  batches = trained.swap_images(Chosen(structures, place), Chosen(images, donor), what='generating')
  written = 0
  for number, run in enumerate(_in_runs(batches, per_sheet * len(places))):
    for image in run:
      sheets.save_png(folder / 'images' / names[written], image)
      written += 1
    grid = run.reshape(-1, len(places), *run.shape[1:]).swapaxes(0, 1)
    shown = images[number * per_sheet :][: grid.shape[1]]
    sheets.save_png(folder / f'sheet_{number:03d}.png', sheets.swap_sheet(structures, shown, grid))
  sources = [(people[d], places[p]) for d, p in zip(donor, place, strict=True)]
  _write_manifest(folder / 'manifest.csv', index, names, sources)
  logger.info(f'{written} images, {number + 1} sheets and manifest.csv in {folder}')
  return folder


def _write_manifest(
  path: pathlib.Path, index: DatasetIndex, names: Sequence[str], sources: Sequence[tuple[int, int]]
) -> None:
  """A row per image: whose clothes on whose image. Whole or not at all."""
  query = index.query
  with whole_file(path) as aside, aside.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(MANIFEST_FIELDS)
    for name, (donor, place) in zip(names, sources, strict=True):
      row = [f'images/{name}']
      for image in (donor, place):
        row += [str(query.identity[image]), os.path.relpath(query.paths[image], index.root)]
      writer.writerow(row)
