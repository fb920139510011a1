"""Conversion of data sets: to the release's folders and back, to a table with a validation part, several into one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import itertools
import logging
import os
import pathlib
import re
import shutil

import numpy as np

from dgnet_jax.data.image_bytes import RecordAddress, read_bytes
from dgnet_jax.data.index import UNIDENTIFIED, DatasetIndex, LabeledImage, Split, printable
from dgnet_jax.data.layouts import LAYOUTS, SPLITS
from dgnet_jax.data.readers.table import SUFFIX, write_table
from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import atomic_folder
from dgnet_jax.utils.bounded_files import check_regular
from dgnet_jax.utils.progress import ProgressLog

logger = logging.getLogger(__name__)

RELEASE_FOLDERS = {'train': 'train_all', 'query': 'query', 'gallery': 'gallery', 'multi_query': 'multi-query'}
MARKET1501_CAMERAS = 9  # its file names have one digit for the camera


def _copy(source: str, target: pathlib.Path) -> None:
  if isinstance(source, RecordAddress):
    target.write_bytes(read_bytes(source))
  else:
    shutil.copyfile(source, target)


def _hard_link(source: str, target: pathlib.Path) -> None:
  os.link(os.path.realpath(source), target)


def _symlink(source: str, target: pathlib.Path) -> None:
  target.symlink_to(os.path.abspath(source))


METHODS: Mapping[str, Callable[[str, pathlib.Path], object]] = {
  'copy': _copy,
  'hardlink': _hard_link,
  'symlink': _symlink,
}


def _labeled_images(split: Split, index: DatasetIndex) -> Iterator[LabeledImage]:
  """Yields the images of a split with the names of their identities and cameras."""
  for path, identity, camera in zip(split.paths, split.identity.tolist(), split.camera.tolist(), strict=True):
    yield LabeledImage(path, index.identity_names[identity], index.camera_names[camera])


def _check_new(path: pathlib.Path) -> None:
  if path.exists() or path.is_symlink():
    raise UserError(f'{path} already exists; name another, or remove it')


def _place_files(files: Sequence[tuple[str, str]], out: pathlib.Path, how: str) -> None:
  """Places every (source, relative target) in the new folder `out`, which appears only when it is complete.

  Raises:
    UserError: `out` exists, or a file cannot be placed.
  """
  _check_new(out)
  place = METHODS[how]
  progress = ProgressLog(logger, how, len(files), 'files')
  with atomic_folder(out) as partial:
    folders: set[str] = set()
    for done, (source, target) in enumerate(files, 1):
      folder, _ = os.path.split(target)
      if folder not in folders:
        (partial / folder).mkdir(parents=True, exist_ok=True)
        folders.add(folder)
      try:
        if not isinstance(source, RecordAddress):
          check_regular(source)
        place(source, partial / target)
      except OSError as error:
        hint = '; --files=copy works everywhere' if how != 'copy' else ''
        raise UserError(f'{printable(source)}: {how} to {out} failed ({error.strerror}){hint}') from error
      progress.update(done)
  logger.info(f'{len(files)} files in {out}')


def _identity_folder(identity: int) -> str:
  return f'{identity:04d}' if identity >= 0 else str(identity)


def _release_name(identity: int, camera: int, path: str) -> str:
  """Returns the file's own name, with identity and camera before it unless it already contains the camera."""
  name = os.path.basename(path)
  match = re.match(r'-?\d+_c(\d+)', name, re.ASCII)
  return name if match and int(match[1]) == camera else f'{_identity_folder(identity)}_c{camera}_{name}'


def to_release(index: DatasetIndex, out: pathlib.Path, *, how: str) -> None:
  """Writes `out`/pytorch/{train_all, query, gallery, multi-query}/<identity>/<file>.

  Args:
    index: index of any data set.
    out: folder to create.
    how: copy, hardlink or symlink.

  Raises:
    UserError: `out` exists, or a file cannot be placed.
  """
  files, used = [], set()
  for split, folder in RELEASE_FOLDERS.items():
    part = index.splits[split]
    for path, identity, camera in zip(part.paths, part.identity.tolist(), part.camera.tolist(), strict=True):
      target = f'pytorch/{folder}/{_identity_folder(identity)}/{_release_name(identity, camera, path)}'
      stem, suffix = os.path.splitext(target)
      number = 0
      while target in used:  # files with the same name from several folders
        number += 1
        target = f'{stem}_{number}{suffix}'
      used.add(target)
      files.append((path, target))
  _place_files(files, out, how)


def to_market1501(index: DatasetIndex, out: pathlib.Path, *, how: str) -> None:
  """Writes a data set in Market-1501's layout. Files that are named like Market-1501's keep their names.

  Args:
    index: index of a data set with at most nine cameras.
    out: folder to create.
    how: copy, hardlink or symlink.

  Raises:
    UserError: there are too many cameras, `out` exists, or a file cannot be placed.
  """
  last_camera = max(index.camera_names, default=0)
  if last_camera > MARKET1501_CAMERAS:
    raise UserError(
      f"{index.root}: camera {last_camera} does not fit into Market-1501's names, which have one digit; `to-release` "
      'takes any number'
    )
  files = []
  for split, part in index.splits.items():
    rows = list(zip(part.paths, part.identity.tolist(), part.camera.tolist(), strict=True))
    names = [_market1501_name(path, identity, camera) for path, identity, camera in rows]
    used = set(names)
    for (path, identity, camera), name in zip(rows, names, strict=True):
      if not name:
        suffix = os.path.splitext(path)[1].lower()
        stem = f'{_identity_folder(identity)}_c{camera}s1'
        candidates = (f'{stem}_{frame:06d}_00{suffix}' for frame in itertools.count())
        name = next(candidate for candidate in candidates if candidate not in used)
        used.add(name)
      files.append((path, f'{LAYOUTS["market1501"].folders[split][0]}/{name}'))
  _place_files(files, out, how)


def _market1501_name(path: str, identity: int, camera: int) -> str:
  """Returns the file's own name if it is Market-1501's name for this identity and camera, else ''."""
  name = os.path.basename(path)
  match = re.fullmatch(LAYOUTS['market1501'].file_name, os.path.splitext(name)[0], re.ASCII)
  labels = (int(match['identity']), int(match['camera'])) if match else None
  return name if labels == (identity, camera) else ''


def _choose_identities(index: DatasetIndex, count: int, seed: int) -> set[int]:
  """Draws `count` training identities; raises UserError unless at least two others remain."""
  identities = np.array(list(index.train.class_of))
  if not 0 < count <= len(identities) - 2:
    raise UserError(
      f'{index.root}: cannot hold out {count} of {len(identities)} training identities; at least 1 must be held out '
      'and at least 2 must remain'
    )
  # Philox's raw numbers, unlike numpy's shuffles, are guaranteed never to change.
  order = np.argsort(np.random.Philox(key=seed).random_raw(len(identities)), kind='stable')
  return set(identities[order[:count]].tolist())


def split_validation(index: DatasetIndex, out: pathlib.Path, *, val_identities: int, seed: int) -> None:
  """Writes a table that holds out some training identities as query and gallery.

  The queries are one image per camera of each held-out identity that at least two cameras saw; the gallery is all
  images of the held-out identities. Queries are therefore also in the gallery, which is harmless: matches by the
  query's own camera never count. The test splits of the data set are not in the table. Nothing is copied: the table's
  paths lead to the data set.

  Args:
    index: index of any data set.
    out: the .csv file to write.
    val_identities: number of identities to hold out.
    seed: selects the identities.

  Raises:
    UserError: fewer than two identities would remain, no held-out identity was seen by two cameras, or `out` exists or
      is not a .csv file.
  """
  _check_table(out)
  train = index.train
  held_out = _choose_identities(index, val_identities, seed)
  cameras_of: dict[int, set[int]] = {}
  for identity, camera in zip(train.identity.tolist(), train.camera.tolist(), strict=True):
    cameras_of.setdefault(identity, set()).add(camera)
  images: dict[str, list[LabeledImage]] = {'train': [], 'query': [], 'gallery': []}
  queried = set()
  for image, identity in zip(_labeled_images(train, index), train.identity.tolist(), strict=True):
    images['gallery' if identity in held_out else 'train'].append(image)
    if identity in held_out and len(cameras_of[identity]) > 1 and (identity, image.camera) not in queried:
      queried.add((identity, image.camera))
      images['query'].append(image)
  if not queried:
    raise UserError(f'{index.root}: no query is possible, as each held-out identity was seen by a single camera')
  write_table(out, images)
  logger.info(
    f'{index.num_identities - val_identities} identities for training ({len(images["train"])} images), '
    f'{val_identities} for validation ({len(images["query"])} queries, {len(images["gallery"])} gallery images): {out}'
  )


def _check_table(out: pathlib.Path) -> None:
  _check_new(out)
  if out.suffix.lower() != SUFFIX:
    raise UserError(f'{out}: the name of a table must end in {SUFFIX}')


def merge(indices: Sequence[DatasetIndex], out: pathlib.Path) -> None:
  """Writes a table of several data sets that share no identities or cameras. Nothing is copied.

  Args:
    indices: indices of the data sets. Their identities and cameras are prefixed with the layout's name, the second data
      set of a layout with '-2' after it.
    out: the .csv file to write.

  Raises:
    UserError: `out` exists or is not a .csv file.
  """
  _check_table(out)
  images: dict[str, list[LabeledImage]] = {split: [] for split in SPLITS}
  used: dict[str, int] = {}
  for index in indices:
    used[index.name] = used.get(index.name, 0) + 1
    prefix = index.name if used[index.name] == 1 else f'{index.name}-{used[index.name]}'
    for name, split in index.splits.items():
      for image in _labeled_images(split, index):
        identity = image.identity if image.identity in UNIDENTIFIED else f'{prefix} {image.identity}'
        images[name].append(LabeledImage(image.path, identity, f'{prefix} {image.camera}'))
    logger.info(f'{prefix}: {len(index.train)} training images of {index.num_identities} identities, {index.root}')
  write_table(out, images)
  identities = {image.identity for image in images['train']}
  logger.info(f'{len(images["train"])} training images of {len(identities)} identities: {out}')
