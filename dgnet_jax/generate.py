"""Pictures from a trained run: every test person in the pose of each of a few others, or a large set (`bulk`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import csv
import os
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.bulk import generate_set
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.open import open_dataset
from dgnet_jax.data.photos import Chosen, PhotoFiles
from dgnet_jax.evaluation import sheets
from dgnet_jax.files import whole_file
from dgnet_jax.trained import load_trained, one_photo_each, results_folder

Log = Callable[[str], None]

MANIFEST_FIELDS = ('file', 'appearance_identity', 'appearance_from', 'structure_identity', 'structure_from')


def _in_runs(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
  """The same pictures in runs of `size`; the last may be shorter."""
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


def generate(config: Any, workdir: str | pathlib.Path, *, log: Log = print) -> pathlib.Path:
  """Writes a folder of generated pictures and a manifest that says who gave what, as config.generation.plan says.

  Of `generation.plan`, photos and identities are work for `bulk.generate_set`. With sheets, the people are those of the
  query split, one photo each. `evaluation.num_swaps` of them, evenly spread, give the structures (pose, place,
  background); everybody gives the appearance (clothes) for one picture per structure. A sheet shows
  `evaluation.num_swaps` people. The manifest is written last: a folder that has one is complete.

  Args:
    config: of the run, validated.
    workdir: of the run.
    log: takes progress lines and says where the pictures are.

  Returns:
    The folder, `<workdir>/generated/step_<step>` (or as `results_folder` says): `sheet_<n>.png`,
    `pictures/<identity>_in_<structure identity>.png` and `manifest.csv`, in which the paths of the sources are relative
    to the data set's folder.

  Raises:
    UserError: data set or checkpoint are missing, damaged or do not fit; says which.
  """
  if config.generation.plan != 'sheets':
    return generate_set(config, workdir, log=log)
  workdir = pathlib.Path(workdir)
  index = open_dataset(config, workdir, needs=('query',), log=log)
  trained = load_trained(config, workdir)
  folder = results_folder(config, index, workdir, 'generated') / f'step_{trained.step:07d}'
  query, per_sheet = index.query, config.evaluation.num_swaps
  people, places = one_photo_each(query), one_photo_each(query, per_sheet)
  photos = PhotoFiles([query.paths[i] for i in people], tuple(config.data.image_size_hw))[:]
  structures = photos[np.searchsorted(query.identity[people], query.identity[places])]
  donor, place = np.divmod(np.arange(len(people) * len(places)), len(places))
  names = [
    f'{query.identity[people[d]]:04d}_in_{query.identity[places[p]]:04d}.png' for d, p in zip(donor, place, strict=True)
  ]

  batches = trained.swap_pictures(Chosen(structures, place), Chosen(photos, donor), log=log, what='generating')
  written = 0
  for number, run in enumerate(_in_runs(batches, per_sheet * len(places))):
    for picture in run:
      sheets.save_png(folder / 'pictures' / names[written], picture)
      written += 1
    grid = run.reshape(-1, len(places), *run.shape[1:]).swapaxes(0, 1)
    shown = photos[number * per_sheet :][: grid.shape[1]]
    sheets.save_png(folder / f'sheet_{number:03d}.png', sheets.swap_sheet(structures, shown, grid))
  sources = [(people[d], places[p]) for d, p in zip(donor, place, strict=True)]
  _write_manifest(folder / 'manifest.csv', index, names, sources)
  log(f'{written} pictures, {number + 1} sheets and manifest.csv in {folder}')
  return folder


def _write_manifest(
  path: pathlib.Path, index: DatasetIndex, names: Sequence[str], sources: Sequence[tuple[int, int]]
) -> None:
  """A row per picture: whose clothes on whose photo. Whole or not at all."""
  query = index.query
  with whole_file(path) as aside, aside.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(MANIFEST_FIELDS)
    for name, (donor, place) in zip(names, sources, strict=True):
      row = [f'pictures/{name}']
      for photo in (donor, place):
        row += [str(query.identity[photo]), os.path.relpath(query.paths[photo], index.root)]
      writer.writerow(row)
