"""A large set of generated images: whose clothes on whose image is drawn, and a table says it.

Image i is a function of (generation.seed, i) and of the two images, so a set can be made in parts, by several
processes, and made larger later.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import csv
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from typing import Any

import jax
import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.images import for_each_file, read_image
from dgnet_jax.data.index import DISTRACTOR, DatasetIndex, Split
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.inference.trained import Trained, load_trained, results_folder
from dgnet_jax.training.preemption import stop_signals
from dgnet_jax.utils.atomic_files import whole_file
from dgnet_jax.utils.writers import save_image

logger = logging.getLogger(__name__)


# The first four make it a data set of layout csv.
MANIFEST_FIELDS = ('path', 'identity', 'camera', 'split', 'appearance_from', 'structure_from', 'structure_identity')
PLAN_FILE = 'plan.json'
SUFFIXES = {'jpeg': '.jpg', 'png': '.png'}
WRITERS = 8  # files written at a time


@dataclasses.dataclass(frozen=True)
class Plan:
  """Who gives what in each image of a set.

  Args:
    settings: config.generation.
    index: of the data.
  """

  settings: Any
  index: DatasetIndex

  @property
  def appearances(self) -> Split:
    return self.index.splits[self.settings.appearance_split]

  @property
  def structures(self) -> Split:
    return self.index.splits[self.settings.structure_split]

  def pairs(self) -> np.ndarray:
    """i64[N, 2]: for every image the image of `appearances` and the image of `structures`, never of one person.

    Raises:
      UserError: there are no two people.
    """
    donors, places = (np.flatnonzero(split.identity > DISTRACTOR) for split in (self.appearances, self.structures))
    people = np.unique(self.appearances.identity[donors])
    known = [np.unique(split.identity[split.identity > DISTRACTOR]) for split in (self.appearances, self.structures)]
    if not all(map(len, known)) or (len(known[1]) == 1 and np.isin(known[1], known[0]).any()):
      raise UserError(f'{self.index.root}: a structure and an appearance take two people')
    of_person = {person: donors[self.appearances.identity[donors] == person] for person in people}
    givers = len(people) if self.settings.plan == 'identities' else len(donors)
    count = self.settings.num_images or givers * self.settings.per_appearance
    pairs = np.empty((count, 2), np.int64)
    for i in range(count):
      rng = np.random.default_rng([self.settings.seed, i])
      if self.settings.plan == 'identities':
        images = of_person[people[i % givers]]
        donor = images[rng.integers(len(images))]
      else:
        donor = donors[i % givers]
      pairs[i] = donor, self._place(rng, places, self.appearances.identity[donor])
    return pairs

  def _place(self, rng: np.random.Generator, places: np.ndarray, person: int) -> int:
    """An image of somebody else."""
    while True:
      place = places[rng.integers(len(places))]
      if self.structures.identity[place] != person:
        return place

  def file_name(self, number: int, pair: np.ndarray) -> str:
    """Of an image, in the set's folder: a folder for each person whose clothes are worn."""
    person, other = self.appearances.identity[pair[0]], self.structures.identity[pair[1]]
    return f'images/{person:04d}/{person:04d}_{number:07d}_in_{other:04d}{SUFFIXES[self.settings.format]}'

  def row(self, name: str, pair: np.ndarray) -> tuple[str, ...]:
    """Of the manifest. The camera is that of the structure, whose background is seen."""
    appearances, structures, names = self.appearances, self.structures, self.index.identity_names
    donor, place = pair.tolist()
    person, other, camera = int(appearances.identity[donor]), int(structures.identity[place]), structures.camera[place]
    return (
      name,
      names.get(person, str(person)),
      self.index.camera_names.get(int(camera), str(camera)),
      'train',
      os.path.relpath(appearances.paths[donor], self.index.root),
      os.path.relpath(structures.paths[place], self.index.root),
      names.get(other, str(other)),
    )

  def description(self, trained: Trained) -> dict[str, Any]:
    """What all images of a set have in common; its size is not part of it."""
    networks = hashlib.sha256()
    for leaf in jax.tree.leaves((trained.generator, trained.reid, trained.reid_stats)):
      networks.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    images = hashlib.sha256()
    for split in (self.appearances, self.structures):
      for path, identity in zip(split.paths, split.identity.tolist(), strict=True):
        images.update(f'{os.path.relpath(path, self.index.root)}\n{identity}\n'.encode(errors='surrogateescape'))
    fixed = ('plan', 'appearance_split', 'structure_split', 'format', 'jpeg_quality', 'seed')
    return {name: self.settings[name] for name in fixed} | {
      'images': images.hexdigest(),
      'networks': networks.hexdigest(),
    }


def generate_set(config: Config, workdir: str | pathlib.Path) -> pathlib.Path:
  """Makes the images of config.generation that are not there yet; each process those whose turn it is.

  The manifest is written when the last image is there, by the process that finds it so: a set that has one is
  complete. The same command goes on with a set that has none.

  Args:
    config: of the run, validated.
    workdir: of the run.

  Returns:
    The folder, `<workdir>/generated/step_<step>_<plan>_seed<seed>` (or as `results_folder` says):
    `images/<identity>/<identity>_<number>_in_<structure identity>.jpg` and `manifest.csv`, which is a data set of
    layout csv; paths of the sources are relative to their data set's folder.

  Raises:
    UserError: data set or checkpoint are missing, damaged or do not fit, or the folder holds another set; says which.
    Interrupted: SIGINT or SIGTERM came.
  """
  settings = config.generation
  index = open_dataset(config, workdir, needs=(settings.appearance_split, settings.structure_split))
  plan = Plan(settings, index)
  pairs = plan.pairs()
  names = [plan.file_name(i, pair) for i, pair in enumerate(pairs)]
  trained = load_trained(config, workdir)
  folder = results_folder(config, index, pathlib.Path(workdir), 'generated')
  folder /= f'step_{trained.step:07d}_{settings.plan}_seed{settings.seed}'
  _note_plan(folder / PLAN_FILE, plan.description(trained))

  there, _ = _files_in(folder / 'images')
  first, step = _turn()
  mine = range(first, len(names), step)
  todo = [i for i in mine if names[i] not in there]
  logger.info(f'{len(names)} images in {folder}: {len(mine) - len(todo)} of our {len(mine)} are there')
  if todo:
    (folder / 'manifest.csv').unlink(missing_ok=True)
    _make(config, plan, trained, folder, names, pairs, todo)
  _finish(plan, folder, names, pairs)
  return folder


def _turn() -> tuple[int, int]:
  """The first image of this process, and from each of its images to the next."""
  return jax.process_index(), jax.process_count()


def _make(
  config: Config,
  plan: Plan,
  trained: Trained,
  folder: pathlib.Path,
  names: Sequence[str],
  pairs: np.ndarray,
  todo: Sequence[int],
) -> None:
  """Makes and writes the images `todo`; no more than a few batches are in memory."""
  appearances, structures = (
    [split.paths[i] for i in pairs[todo, column]] for column, split in enumerate((plan.appearances, plan.structures))
  )
  used, size = sorted({*appearances, *structures}), config.data.image_size_hw
  for_each_file(
    lambda i: read_image(used[i], size), used, threads=config.data.decode_threads, what='checking the images:'
  )
  batches = trained.swap_images(ImageFiles(structures, size), ImageFiles(appearances, size))
  written = 0

  def write(number: int, image: np.ndarray) -> None:
    save_image(folder / names[number], image, jpeg_quality=plan.settings.jpeg_quality)

  with stop_signals() as stopped, ThreadPoolExecutor(WRITERS) as pool:
    for batch in batches:
      list(pool.map(write, todo[written : written + len(batch)], batch))
      written += len(batch)
      if stopped() and written < len(todo):
        raise Interrupted(f'stopped after {written} of {len(todo)} images in {folder}. The same command goes on.')


def _note_plan(path: pathlib.Path, description: dict[str, Any]) -> None:
  """Remembers what the folder holds; raises UserError if it holds something else."""
  if path.exists():
    try:
      saved = json.loads(path.read_text())
      changes = [
        f'{name}: {saved.get(name)} -> {value}' for name, value in description.items() if saved.get(name) != value
      ]
    except (ValueError, AttributeError) as error:
      raise UserError(f'{path}: damaged ({error}); move the folder away') from error
    if changes:
      raise UserError(
        f'{path.parent}: holds another set ({"; ".join(changes)}). Move it away, or take another generation.seed.'
      )
    return
  with whole_file(path) as aside:
    aside.write_text(json.dumps(description, indent=2) + '\n')


def _files_in(images: pathlib.Path) -> tuple[set[str], list[pathlib.Path]]:
  """Names of the whole images as in `Plan.file_name`, and files that killed processes left behind."""
  there, parts = set(), []
  for folder in images.iterdir() if images.is_dir() else ():
    for name in os.listdir(folder):
      if name.startswith('.'):
        parts.append(folder / name)
      else:
        there.add(f'images/{folder.name}/{name}')
  return there, parts


def _finish(plan: Plan, folder: pathlib.Path, names: Sequence[str], pairs: np.ndarray) -> None:
  """Writes the manifest if nobody has anything left to do."""
  there, parts = _files_in(folder / 'images')
  missing = sum(name not in there for name in names)
  if missing:
    logger.info(f'{missing} images of other processes are still to come; the last one writes manifest.csv')
    return
  for part in parts:
    part.unlink(missing_ok=True)
  with whole_file(folder / 'manifest.csv') as aside:
    with aside.open('w', encoding='utf-8', errors='surrogateescape', newline='') as file:
      writer = csv.writer(file)
      writer.writerow(MANIFEST_FIELDS)
      writer.writerows(plan.row(name, pair) for name, pair in zip(names, pairs, strict=True))
  logger.info(f'{len(names)} images and manifest.csv in {folder}')
