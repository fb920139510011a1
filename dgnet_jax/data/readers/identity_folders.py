"""A folder for each identity: the release's form of a data set, and the user's own images."""

from collections.abc import Mapping, Sequence
import logging
import os
import pathlib
import re

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.index import LabeledImage, summarize
from dgnet_jax.data.layouts import Layout
from dgnet_jax.data.readers.listing import ReadImages, first_folder, list_folders, list_images, warn_about_skipped
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


RELEASE_FOLDER = 'pytorch'  # in which the release keeps the splits
QUERY_CAMERA, OTHER_CAMERA = 'query', 'others'  # camera names if cameras are unknown
SAMPLE = 50  # identities inspected to detect a layout
# What data sets call crops without a usable person, and people who are in no query.
UNIDENTIFIED_WORDS = {
  **dict.fromkeys(('-1', 'junk'), 'junk'),
  **dict.fromkeys(('distractor', 'distractors', 'background'), 'distractor'),
}


def _camera(pattern: str, split: str, name: str) -> str | None:
  """Returns the camera in a file name; None or '' if it has none."""
  if not pattern:
    return QUERY_CAMERA if split == 'query' else OTHER_CAMERA
  match = re.search(pattern, name)
  camera = match['camera'] if match else None
  return str(int(camera)) if camera and camera.isascii() and camera.isdigit() else camera


def _read_split(split: str, folder: pathlib.Path, pattern: str) -> list[LabeledImage]:
  """Reads one split.

  Raises:
    UserError: a file name has no camera, or there are no images.
  """
  identities, skipped = list_folders(folder)
  images, without_camera, empty = [], [], []
  for identity in identities:
    names, others = list_images(folder / identity)
    skipped += [os.path.join(identity, name) for name in others]
    if not names:
      empty.append(identity)
    for name in names:
      camera = _camera(pattern, split, name)
      if camera:
        images.append(LabeledImage(os.path.join(folder, identity, name), identity, camera))
      else:
        without_camera.append(os.path.join(identity, name))
  warn_about_skipped(folder, skipped)
  if empty:
    logger.warning(f'{folder}: {len(empty)} folders without images ({summarize(empty)})')
  if without_camera:
    raise UserError(
      f'{folder}: no camera in {len(without_camera)} of {len(without_camera) + len(images)} file names, by the pattern '
      f'{pattern}: {summarize(without_camera)}. Rename or remove them, or set data.camera_pattern.'
    )
  if not images:
    raise UserError(f'{folder}: no images in it; it should contain a folder for each identity')
  return images


def mark_unidentified(images: Mapping[str, list[LabeledImage]]) -> dict[str, list[LabeledImage]]:
  """Replaces the identities of junk and distractors by 'junk' and 'distractor'.

  -1 is junk. 0 (0000) is a distractor if it is in neither train nor query; otherwise it is an identity, as in MSMT17,
  whose labels start at 0. The names of `UNIDENTIFIED_WORDS` are not names of people, in upper or lower case.
  """
  known = {image.identity for split in ('train', 'query') for image in images.get(split, ())}

  def marked(identity: str) -> str:
    if identity.lower() in UNIDENTIFIED_WORDS:
      return UNIDENTIFIED_WORDS[identity.lower()]
    return 'distractor' if not identity.strip('0') and identity not in known else identity

  return {split: [image._replace(identity=marked(image.identity)) for image in rows] for split, rows in images.items()}


def _base(layout: Layout, root: pathlib.Path) -> pathlib.Path:
  """Returns the folder that contains the splits."""
  return root / RELEASE_FOLDER if layout.name == 'release' and (root / RELEASE_FOLDER).is_dir() else root


def _folders(layout: Layout, base: pathlib.Path, train_with_val: bool) -> dict[str, list[pathlib.Path]]:
  """Returns the folders of every split that exists. The release's train_all is train and val together."""
  names: dict[str, Sequence[str]] = dict(layout.folders)
  if layout.name == 'release' and not train_with_val:
    names['train'] = ('train',)
  first = {split: first_folder(base, folders) for split, folders in names.items()}
  paths = {split: [folder] for split, folder in first.items() if folder is not None}
  if layout.name == 'release' and train_with_val and 'train' in paths and paths['train'][0].name == 'train':
    paths['train'] += [base / 'val'] if (base / 'val').is_dir() else []
  return paths


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> ReadImages:
  """Reads the splits that exist, without opening any image.

  Raises:
    UserError: there are no splits, a split is empty, or a file name has no camera.
  """
  base = _base(layout, root)
  pattern = layout.file_name or data_config.camera_pattern
  paths = _folders(layout, base, data_config.train_with_val)
  if not paths:
    expected = ', '.join(name for names in layout.folders.values() for name in names)
    raise UserError(f'{base}: none of the folders {expected} exists; each contains a folder for each identity')
  if not pattern:
    logger.warning(
      'data.camera_pattern is not set, so cameras are unknown and every gallery image of a query identity is a match'
    )
  images = {
    split: [image for folder in folders for image in _read_split(split, folder, pattern)]
    for split, folders in paths.items()
  }
  return ReadImages(mark_unidentified(images), base)


def matches(layout: Layout, root: pathlib.Path) -> bool:
  """Returns True if a split contains folders with images, whose names are like the release's for its layout."""
  names = []
  for folders in _folders(layout, _base(layout, root), True).values():
    for identity in list_folders(folders[0])[0][:SAMPLE]:
      names += list_images(folders[0] / identity)[0][:1]
  if layout.name != 'release':
    return bool(names)
  # Identity and camera, as in 0002_c1...: users' own file names rarely look like this by chance.
  return bool(names) and all(re.match(r'-?\d+_c\d', name, re.ASCII) for name in names)
