"""MARS: tracks of people in video. Query and gallery are in one folder; lists in `info` say which are queries."""

import logging
import os
import pathlib
import re

import numpy as np

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.index import MAX_DIGITS, LabeledImage, summarize
from dgnet_jax.data.layouts import Layout
from dgnet_jax.data.readers.listing import (
  ReadImages,
  first_folder,
  list_folders,
  list_images,
  list_recursively,
  warn_about_skipped,
)
from dgnet_jax.data.readers.mat_files import read_matrix
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import read_text

logger = logging.getLogger(__name__)

UNIDENTIFIED_NAMES = {'00-1': 'junk', '0000': 'distractor'}
INFO = 'info'
QUERIES = ('query_IDX.mat', 'query_IDX.txt')  # numbers of the query tracks among the test tracks, from 1
TRACKS, NAMES = 'tracks_test_info.mat', 'test_name.txt'  # first and last line of each track in the list of names


def _match(layout: Layout, path: str) -> re.Match[str] | None:
  return re.fullmatch(layout.file_name, os.path.splitext(os.path.basename(path))[0], re.ASCII)


def _read_folder(layout: Layout, folder: pathlib.Path) -> list[LabeledImage]:
  """Reads all images in a folder's subfolders; raises UserError if a name does not match, or there are none."""
  paths, skipped = list_recursively(folder)
  warn_about_skipped(folder, [os.path.relpath(path, folder) for path in skipped])
  if not paths:
    raise UserError(f'{folder}: no images in it')
  images, wrong = [], []
  for path in paths:
    match = _match(layout, path)
    if match is None:
      wrong.append(os.path.relpath(path, folder))
      continue
    identity = UNIDENTIFIED_NAMES.get(match['identity'], match['identity'])
    images.append(LabeledImage(path, identity, str(int(match['camera'])), match['track']))
  if wrong:
    raise UserError(
      f'{folder}: {len(wrong)} of {len(paths)} file names are not like {layout.example}: {summarize(wrong)}. '
      'Rename or remove them.'
    )
  return images


def _query_numbers(info: pathlib.Path) -> tuple[pathlib.Path, np.ndarray] | None:
  """Reads which test tracks are queries, i64[Q] from 1, and from which file; None if there is none."""
  path = next((info / name for name in QUERIES if (info / name).exists()), None)
  if path is None:
    return None
  if path.suffix == '.mat':
    return path, read_matrix(path).reshape(-1)
  try:
    words = read_text(path).split()
  except (OSError, UnicodeError) as error:
    raise UserError(f'{path}: cannot be read ({getattr(error, "strerror", None) or error})') from error
  wrong = [word for word in words if not (word.isascii() and word.isdecimal() and len(word) <= MAX_DIGITS)]
  if wrong or not words:
    raise UserError(f'{path}: not the numbers of tracks{f": {summarize(wrong)}" if wrong else ""}')
  return path, np.array(words, np.int64)


def _test_tracks(layout: Layout, info: pathlib.Path, images: list[LabeledImage]) -> list[str]:
  """Returns the tracks of the test set in the order of the lists, or else of their names.

  Raises:
    UserError: a list cannot be read, or does not fit the file names.
  """
  tracks_file, names_file = info / TRACKS, info / NAMES
  if not tracks_file.exists() or not names_file.exists():
    return sorted({image.track for image in images})
  try:
    names = read_text(names_file, errors='surrogateescape').split()
  except OSError as error:
    raise UserError(f'{names_file}: cannot be read ({error.strerror})') from error
  ranges = read_matrix(tracks_file)
  if ranges.shape[1] != 4 or ranges[:, :2].min() < 1 or ranges[:, :2].max() > len(names):
    raise UserError(f'{tracks_file}: not first line, last line, identity and camera of tracks in {names_file}')
  tracks: list[str] = []
  for first, last, _, camera in ranges.tolist():
    matches = [_match(layout, name) for name in {names[first - 1], names[last - 1]}]
    found = {match['track'] if match else '' for match in matches}
    if len(found) != 1 or any(match is None or int(match['camera']) != camera for match in matches):
      raise UserError(f'{tracks_file}: lines {first} to {last} of {names_file} are not one track of camera {camera}')
    tracks += found
  return tracks


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> ReadImages:
  """Reads the splits that exist, without opening any image; without a list of queries all test tracks are the gallery.

  Raises:
    UserError: there are no folders, a file name does not match, or a list does not fit the files.
  """
  images: dict[str, list[LabeledImage]] = {}
  train, test = (first_folder(root, layout.folders[split]) for split in ('train', 'gallery'))
  if train is None and test is None:
    expected = ', '.join(name for names in layout.folders.values() for name in names)
    raise UserError(f'{root}: none of the folders of {layout.title} exists: {expected}')
  if train is not None:
    images['train'] = _read_folder(layout, train)
  if test is not None:
    of_test = _read_folder(layout, test)
    queries = _query_tracks(layout, root / INFO, of_test)
    images['gallery'] = [image for image in of_test if image.track not in queries]
    if queries:
      images['query'] = [image for image in of_test if image.track in queries]
  return ReadImages(images, root)


def _query_tracks(layout: Layout, info: pathlib.Path, images: list[LabeledImage]) -> set[str]:
  """Returns the names of the query tracks; none, with a warning, without a list."""
  read_numbers = _query_numbers(info)
  if read_numbers is None:
    logger.warning(f'{info}: neither {" nor ".join(QUERIES)}, so that there are no queries')
    return set()
  path, numbers = read_numbers
  tracks = _test_tracks(layout, info, images)
  if numbers.min() < 1 or numbers.max() > len(tracks):
    raise UserError(f'{path}: numbers from {numbers.min()} to {numbers.max()}, and there are {len(tracks)} tracks')
  queries = {tracks[number - 1] for number in numbers.tolist()}
  missing = sorted(queries - {image.track for image in images})
  if missing:
    raise UserError(f'{path}: {len(missing)} tracks without images: {summarize(missing)}')
  return queries


def matches(layout: Layout, root: pathlib.Path) -> bool:
  """Returns True if a folder of the layout exists, and the first image in its first subfolder has such a name."""
  for split in ('train', 'gallery'):
    folder = first_folder(root, layout.folders[split])
    for name in list_folders(folder)[0][:1] if folder is not None else ():
      images = list_images(folder / name)[0] if folder is not None else []
      if images:
        return _match(layout, images[0]) is not None
  return False
