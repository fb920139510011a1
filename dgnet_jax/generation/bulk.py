"""Large sets of generated images, with a manifest that names the two sources of each.

Image i is a function of (generation.seed, i) and of its two source images, so a set can be generated in parts, by
several processes, and extended later.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import functools
import hashlib
import logging
import os
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config.schema import Config, GenerationConfig
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.images import for_each_file, read_image
from dgnet_jax.data.index import DISTRACTOR, DatasetIndex, Split
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.generation.manifest import FILE_NAME, TABLE_FOLDER, write_manifest, write_manifest_table
from dgnet_jax.inference.loading import Step, load_predictor
from dgnet_jax.inference.predictor import Predictor
from dgnet_jax.inference.results import data_to_open, results_folder
from dgnet_jax.training.agreement import from_first_process, in_all_processes, turns_of
from dgnet_jax.training.preemption import stop_signals
from dgnet_jax.utils.atomic_files import remove_leftovers, write_json
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, read_json
from dgnet_jax.utils.extras import require_pyarrow
from dgnet_jax.utils.writers import save_image

logger = logging.getLogger(__name__)

# The first four make the manifest a data set of layout csv.
MANIFEST_FIELDS = ('path', 'identity', 'camera', 'split', 'appearance_from', 'structure_from', 'structure_identity')
PLAN_FILE = 'plan.json'
PLAN_FIELDS = ('plan', 'appearance_split', 'structure_split', 'format', 'jpeg_quality', 'seed')  # of config.generation
SUFFIXES = {'jpeg': '.jpg', 'png': '.png'}
WRITERS = 8  # threads that write files


@dataclasses.dataclass(frozen=True)
class Plan:
  """The appearance donor and the structure donor of each image of a set.

  Args:
    settings: config.generation.
    index: index of the data set.
  """

  settings: GenerationConfig
  index: DatasetIndex

  @property
  def appearances(self) -> Split:
    """The split of the appearance donors."""
    return self.index.splits[self.settings.appearance_split]

  @property
  def structures(self) -> Split:
    """The split of the structure donors."""
    return self.index.splits[self.settings.structure_split]

  @functools.cached_property
  def pairs(self) -> np.ndarray:
    """i64[N, 2]: for each image, indices into `appearances` and `structures`, always of two different people.

    Raises:
      UserError: the splits do not show two different people.
    """
    donors, structures = (np.flatnonzero(split.identity > DISTRACTOR) for split in (self.appearances, self.structures))
    people = np.unique(self.appearances.identity[donors])
    structure_people = np.unique(self.structures.identity[structures])
    only_oneself = len(structure_people) == 1 and structure_people[0] in people
    if not len(people) or not len(structure_people) or only_oneself:
      raise UserError(f'{self.index.root}: generated images need an appearance and a structure of two different people')
    for_identity = self.settings.plan == 'identities'
    images_of = {person: donors[self.appearances.identity[donors] == person] for person in people}
    num_donors = len(people) if for_identity else len(donors)
    count = self.settings.num_images or num_donors * self.settings.per_appearance
    pairs = np.empty((count, 2), np.int64)
    for i in range(count):
      rng = np.random.default_rng([self.settings.seed, i])
      if for_identity:
        images = images_of[people[i % num_donors]]
        donor = images[rng.integers(len(images))]
      else:
        donor = donors[i % num_donors]
      structure = structures[rng.integers(len(structures))]
      while self.structures.identity[structure] == self.appearances.identity[donor]:
        structure = structures[rng.integers(len(structures))]
      pairs[i] = donor, structure
    return pairs

  @functools.cached_property
  def names(self) -> list[str]:
    """The file of each image, relative to the folder of the set: one subfolder for each appearance identity."""
    names = []
    for i, (donor, structure) in enumerate(self.pairs):
      person, other = self.appearances.identity[donor], self.structures.identity[structure]
      names.append(f'images/{person:04d}/{person:04d}_{i:07d}_in_{other:04d}{SUFFIXES[self.settings.format]}')
    return names

  def rows(self) -> Iterator[tuple[str, ...]]:
    """Returns the rows of the manifest. The camera is that of the structure donor, whose background the image shows."""
    index, appearances, structures = self.index, self.appearances, self.structures
    for name, (donor, structure) in zip(self.names, self.pairs.tolist(), strict=True):
      person, other = int(appearances.identity[donor]), int(structures.identity[structure])
      camera = int(structures.camera[structure])
      yield (
        name,
        index.identity_names.get(person, str(person)),
        index.camera_names.get(camera, str(camera)),
        'train',
        os.path.relpath(appearances.paths[donor], index.root),
        os.path.relpath(structures.paths[structure], index.root),
        index.identity_names.get(other, str(other)),
      )

  def description(self, predictor: Predictor) -> dict[str, Any]:
    """Describes what all images of a set have in common, as JSON. The set's size is left out, because sets can grow."""
    predictor.require_generator()
    images = hashlib.sha256()
    for split in (self.appearances, self.structures):
      for path, identity in zip(split.paths, split.identity.tolist(), strict=True):
        images.update(f'{os.path.relpath(path, self.index.root)}\n{identity}\n'.encode(errors='surrogateescape'))
    return {name: getattr(self.settings, name) for name in PLAN_FIELDS} | {
      'images': images.hexdigest(),
      'networks': predictor.digest(),
    }


def generate_set(config: Config, workdir: str | pathlib.Path, *, step: Step = None) -> pathlib.Path:
  """Generates the images of `config.generation` that do not exist yet; each process takes its share of them.

  The process that finds all images written writes the manifest, so a set with a manifest is complete. The same command
  resumes a set without one. With `generation.manifest_table`, or if there is such a folder already, the manifest is
  also written as Parquet files, to `manifest_table/` beside it.

  Args:
    config: the run's validated config.
    workdir: the run's work folder.
    step: which checkpoint.

  Returns:
    The folder, `<workdir>/generated/step_<step>_<plan>_seed<seed>` (or in a subfolder per data set, see
    `results_folder`): `images/<identity>/<identity>_<number>_in_<structure identity>.jpg` and `manifest.csv`, which is
    a data set of layout csv; its source paths are relative to the root of the original data set.

  Raises:
    UserError: the data set or the checkpoint is missing or damaged or does not fit the config, or the folder holds
      another set.
    Interrupted: SIGINT or SIGTERM was received.
  """
  settings = config.generation
  needs = (settings.appearance_split, settings.structure_split)
  plan = Plan(settings, in_all_processes(lambda: open_dataset(data_to_open(config, workdir), workdir, needs=needs)))
  names = plan.names
  predictor = load_predictor(config, workdir, step=step)
  folder = results_folder(config, plan.index, workdir, 'generated')
  folder /= f'step_{predictor.step:07d}_{settings.plan}_seed{settings.seed}'
  if (folder / TABLE_FOLDER).exists():  # it must describe the set, whatever the setting says now
    require_pyarrow(str(folder / TABLE_FOLDER), 'or move it away')
  from_first_process(lambda: _check_plan(folder / PLAN_FILE, plan.description(predictor)))

  existing = _files_in(folder / 'images')
  share = turns_of(len(names))
  missing = [i for i in share if names[i] not in existing]
  logger.info(f'{len(names)} images in {folder}: {len(share) - len(missing)} of the {len(share)} of this process exist')

  def complete() -> None:
    if missing:
      (folder / FILE_NAME).unlink(missing_ok=True)
      for file in (folder / TABLE_FOLDER).glob('*.parquet'):
        file.unlink(missing_ok=True)
      _generate(plan, missing, folder, predictor, threads=config.data.decode_threads)
    _finish(plan, folder)

  in_all_processes(complete)  # JAX does not wait for long at the end of a process
  return folder


def _generate(plan: Plan, chosen: Sequence[int], folder: pathlib.Path, predictor: Predictor, *, threads: int) -> None:
  """Generates and writes the `chosen` images of a set, a few batches in memory at a time."""
  size = predictor.networks.image_size_hw
  appearances = [plan.appearances.paths[i] for i in plan.pairs[chosen, 0]]
  structures = [plan.structures.paths[i] for i in plan.pairs[chosen, 1]]
  sources = sorted({*appearances, *structures})
  for_each_file(lambda i: read_image(sources[i], size), sources, threads=threads, action='checking images:')
  batches = predictor.swap_batches(
    structure_from=ImageFiles(structures, size), appearance_from=ImageFiles(appearances, size)
  )
  num_written = 0

  def write(number: int, image: np.ndarray) -> None:
    save_image(folder / plan.names[number], image, jpeg_quality=plan.settings.jpeg_quality)

  with stop_signals() as stopped, ThreadPoolExecutor(WRITERS) as pool:
    for batch in batches:
      list(pool.map(write, chosen[num_written : num_written + len(batch)], batch))
      num_written += len(batch)
      if stopped() and num_written < len(chosen):
        raise Interrupted(
          f'stopped after {num_written} of {len(chosen)} images in {folder}. Run the same command to resume.'
        )


def _check_plan(path: pathlib.Path, description: dict[str, Any]) -> None:
  """Writes the description of a new set; raises UserError if the folder holds another set."""
  if not path.exists():
    write_json(path, description)
    return
  try:
    saved = read_json(path, MAX_DESCRIPTION_BYTES)
    changes = [
      f'{name}: {saved.get(name)} -> {value}' for name, value in description.items() if saved.get(name) != value
    ]
  except (OSError, ValueError, AttributeError) as error:
    raise UserError(f'{path} is damaged ({error}); move the folder away') from error
  if changes:
    raise UserError(
      f'{path.parent} holds another set ({"; ".join(changes)}). Move it away, or set another generation.seed.'
    )


def _folders_in(images: pathlib.Path) -> list[pathlib.Path]:
  return [path for path in images.iterdir() if path.is_dir()] if images.is_dir() else []


def _files_in(images: pathlib.Path) -> set[str]:
  """Returns the names of the complete images, as in `Plan.names`."""
  return {
    f'images/{folder.name}/{name}'
    for folder in _folders_in(images)
    for name in os.listdir(folder)
    if not name.startswith('.')
  }


def _finish(plan: Plan, folder: pathlib.Path) -> None:
  """Writes the manifest if all images exist."""
  complete = _files_in(folder / 'images')
  num_missing = sum(name not in complete for name in plan.names)
  if num_missing:
    logger.info(f'{num_missing} images of other processes are missing; the last process writes {FILE_NAME}')
    return
  for path in _folders_in(folder / 'images'):
    remove_leftovers(path)
  if plan.settings.manifest_table or (folder / TABLE_FOLDER).exists():
    write_manifest_table(folder / TABLE_FOLDER, MANIFEST_FIELDS, plan.rows(), len(plan.names))
  write_manifest(folder / FILE_NAME, MANIFEST_FIELDS, plan.rows())
  logger.info(f'{len(plan.names)} images and {FILE_NAME} in {folder}')
