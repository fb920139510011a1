"""Data sets in other forms: the release's folders and back, a table with a validation part, several as one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import itertools
import logging
import os
import pathlib
import re
import shutil
import time

import numpy as np

from dgnet_jax.data.image_bytes import is_record, read_contents
from dgnet_jax.data.index import NOBODY, DatasetIndex, Image, Split, printable
from dgnet_jax.data.layouts import LAYOUTS, SPLITS
from dgnet_jax.data.readers.table import SUFFIX, write_table
from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import whole_folder
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
RELEASE_FOLDERS = {'train': 'train_all', 'query': 'query', 'gallery': 'gallery', 'multi_query': 'multi-query'}
MARKET1501_CAMERAS = 9  # its names have one digit for them


def _copy(source: str, target: pathlib.Path) -> None:
  if is_record(source):
    target.write_bytes(read_contents(source))
  else:
    shutil.copyfile(source, target)


def _hard_link(source: str, target: pathlib.Path) -> None:
  os.link(os.path.realpath(source), target)


def _symlink(source: str, target: pathlib.Path) -> None:
  target.symlink_to(os.path.abspath(source))


PLACING: Mapping[str, Callable[[str, pathlib.Path], object]] = {
  'copy': _copy,
  'hardlink': _hard_link,
  'symlink': _symlink,
}


def images_of(split: Split, index: DatasetIndex) -> Iterator[Image]:
  """The images of a split under their names."""
  for path, identity, camera in zip(split.paths, split.identity.tolist(), split.camera.tolist(), strict=True):
    yield Image(path, index.identity_names[identity], index.camera_names[camera])


def _check_new(path: pathlib.Path) -> None:
  if path.exists() or path.is_symlink():
    raise UserError(f'{path} is there already; name another, or remove it')


def _place_all(files: Sequence[tuple[str, str]], out: pathlib.Path, how: str) -> None:
  """Puts (source, path below `out`) there, all or nothing.

  Raises:
    UserError: `out` is there, or a file cannot be placed; names it.
  """
  _check_new(out)
  place = PLACING[how]
  progress, last = Progress(len(files), unit='files'), time.monotonic()
  with whole_folder(out) as aside:
    made: set[str] = set()
    for done, (source, below) in enumerate(files, 1):
      folder, _ = os.path.split(below)
      if folder not in made:
        (aside / folder).mkdir(parents=True, exist_ok=True)
        made.add(folder)
      try:
        place(source, aside / below)
      except OSError as error:
        hint = '; --files=copy works everywhere' if how != 'copy' else ''
        raise UserError(f'{printable(source)}: no {how} to {out} ({error.strerror}){hint}') from error
      if time.monotonic() - last > PROGRESS_SECONDS:
        logger.info(f'{how} {progress.line(done)}')
        last = time.monotonic()
  logger.info(f'{len(files)} files in {out}')


def _release_name(identity: int, camera: int, path: str) -> str:
  """The file's own name where it tells its camera in the release's way, else that put before it."""
  name = os.path.basename(path)
  told = re.match(r'-?\d+_c(\d+)', name, re.ASCII)
  return name if told and int(told[1]) == camera else f'{_folder_name(identity)}_c{camera}_{name}'


def _folder_name(identity: int) -> str:
  return f'{identity:04d}' if identity >= 0 else str(identity)


def to_release(index: DatasetIndex, out: pathlib.Path, *, how: str) -> None:
  """Writes `out`/pytorch/{train_all, query, gallery, multi-query}/<identity>/<file>, a folder for each number.

  Args:
    index: of any data set.
    out: folder to make.
    how: copy, hardlink or symlink.

  Raises:
    UserError: `out` is there, or a file cannot be placed; names it.
  """
  files, taken = [], set()
  for split, folder in RELEASE_FOLDERS.items():
    part = index.splits[split]
    for path, identity, camera in zip(part.paths, part.identity.tolist(), part.camera.tolist(), strict=True):
      below = f'pytorch/{folder}/{_folder_name(identity)}/{_release_name(identity, camera, path)}'
      stem, suffix = os.path.splitext(below)
      number = 0
      while below in taken:  # files of one name, from several folders
        number += 1
        below = f'{stem}_{number}{suffix}'
      taken.add(below)
      files.append((path, below))
  _place_all(files, out, how)


def to_market1501(index: DatasetIndex, out: pathlib.Path, *, how: str) -> None:
  """Writes a data set in Market-1501's layout; files that have its names keep them.

  Args:
    index: of the release's folders, or of any data set with at most nine cameras.
    out: folder to make.
    how: copy, hardlink or symlink.

  Raises:
    UserError: there are more cameras than the names can tell, `out` is there, or a file cannot be placed.
  """
  if max(index.camera_names, default=0) > MARKET1501_CAMERAS:
    raise UserError(
      f"{index.root}: cameras go to {max(index.camera_names)}, and Market-1501's names have one digit for them"
    )
  files = []
  for split, part in index.splits.items():
    rows = list(zip(part.paths, part.identity.tolist(), part.camera.tolist(), strict=True))
    own = [_market1501_name(path, identity, camera) for path, identity, camera in rows]
    taken = set(own)
    for (path, identity, camera), name in zip(rows, own, strict=True):
      if not name:
        suffix = os.path.splitext(path)[1].lower()
        made = (f'{_folder_name(identity)}_c{camera}s1_{frame:06d}_00{suffix}' for frame in itertools.count())
        name = next(name for name in made if name not in taken)
        taken.add(name)
      files.append((path, f'{LAYOUTS["market1501"].folders[split][0]}/{name}'))
  _place_all(files, out, how)


def _market1501_name(path: str, identity: int, camera: int) -> str:
  """The file's own name where it is one of Market-1501's and says the same, else ''."""
  name = os.path.basename(path)
  match = re.fullmatch(LAYOUTS['market1501'].file_name, os.path.splitext(name)[0], re.ASCII)
  said = (int(match['identity']), int(match['camera'])) if match else None
  return name if said == (identity, camera) else ''


def split_validation(index: DatasetIndex, out: pathlib.Path, *, val_identities: int, seed: int) -> None:
  """Writes a table in which some training people are kept out of training, as query and gallery.

  The queries are one image of each of them by each camera, where at least two cameras saw the person; the gallery is
  all their images. That a query is in the gallery too is harmless: the same person by the same camera never counts.
  The test part of the data set is not in the table. Nothing is copied: paths lead to the data set.

  Args:
    index: of any data set.
    out: the .csv file to write.
    val_identities: people to keep out.
    seed: which; the same seed and people give the same.

  Raises:
    UserError: there are not as many people and two to train on, none of them was seen by two cameras, or `out` is there
      or no .csv file.
  """
  _check_table(out)
  train = index.train
  people = np.array(list(train.class_of))
  if not 0 < val_identities <= len(people) - 2:
    raise UserError(
      f'{index.root}: {val_identities} people for validation of {len(people)} in the training split; at least 1, and 2 '
      'must be left to train on'
    )
  # Philox's raw numbers, unlike numpy's shuffles, never change.
  order = np.argsort(np.random.Philox(key=seed).random_raw(len(people)), kind='stable')
  held = set(people[order[:val_identities]].tolist())
  seen_by: dict[int, set[int]] = {}
  for identity, camera in zip(train.identity.tolist(), train.camera.tolist(), strict=True):
    seen_by.setdefault(identity, set()).add(camera)
  images: dict[str, list[Image]] = {'train': [], 'query': [], 'gallery': []}
  asked = set()
  for image, identity in zip(images_of(train, index), train.identity.tolist(), strict=True):
    images['gallery' if identity in held else 'train'].append(image)
    if identity in held and len(seen_by[identity]) > 1 and (identity, image.camera) not in asked:
      asked.add((identity, image.camera))
      images['query'].append(image)
  if not asked:
    raise UserError(
      f'{index.root}: none of the {val_identities} people was seen by two cameras, so none can be asked for'
    )
  write_table(out, images)
  logger.info(
    f'{len(people) - val_identities} people to train on ({len(images["train"])} images), {val_identities} to '
    f'validate with ({len(images["query"])} queries, {len(images["gallery"])} gallery images): {out}'
  )


def _check_table(out: pathlib.Path) -> None:
  _check_new(out)
  if out.suffix.lower() != SUFFIX:
    raise UserError(f'{out}: a table is called *{SUFFIX}')


def merge(indices: Sequence[DatasetIndex], out: pathlib.Path) -> None:
  """Writes a table of several data sets whose people and cameras are all different; nothing is copied.

  Args:
    indices: of the data sets. People and cameras get the layout's name before their own, the second data set of a
      layout with '-2' after it.
    out: the .csv file to write.

  Raises:
    UserError: `out` is there or no .csv file.
  """
  _check_table(out)
  images: dict[str, list[Image]] = {split: [] for split in SPLITS}
  used: dict[str, int] = {}
  for index in indices:
    used[index.name] = used.get(index.name, 0) + 1
    prefix = index.name if used[index.name] == 1 else f'{index.name}-{used[index.name]}'
    for name, split in index.splits.items():
      for image in images_of(split, index):
        identity = image.identity if image.identity in NOBODY else f'{prefix} {image.identity}'
        images[name].append(Image(image.path, identity, f'{prefix} {image.camera}'))
    logger.info(f'{prefix}: {len(index.train)} training images of {index.num_identities} people, {index.root}')
  write_table(out, images)
  people = {image.identity for image in images['train']}
  logger.info(f'{len(images["train"])} training images of {len(people)} people: {out}')
