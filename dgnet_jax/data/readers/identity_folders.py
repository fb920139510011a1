"""A folder for each identity: the release's own form of a data set, and anybody's own images."""

from collections.abc import Sequence
import logging
import os
import pathlib
import re

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.index import Image, name_some
from dgnet_jax.data.layouts import Layout
from dgnet_jax.data.readers.listing import Found, first_folder, list_folders, list_images, tell_strays
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


RELEASE_FOLDER = 'pytorch'  # in which the release keeps the splits
QUERY_CAMERA, OTHER_CAMERA = 'query', 'others'  # where no pattern tells cameras
MANY = 50  # folders looked at to recognise a layout


def _camera_of(pattern: str, split: str, name: str) -> str | None:
  if not pattern:
    return QUERY_CAMERA if split == 'query' else OTHER_CAMERA
  match = re.search(pattern, name)
  camera = match['camera'] if match else None
  return str(int(camera)) if camera and camera.isascii() and camera.isdigit() else camera


def _read_split(split: str, folder: pathlib.Path, pattern: str) -> list[Image]:
  """One split.

  Raises:
    UserError: a file's name does not tell its camera, or there is no image; names the folder and the files.
  """
  people, stray = list_folders(folder)
  found, unknown, empty = [], [], []
  for person in people:
    names, others = list_images(folder / person)
    stray += [os.path.join(person, name) for name in others]
    empty += [] if names else [person]
    for name in names:
      camera = _camera_of(pattern, split, name)
      if not camera:
        unknown.append(os.path.join(person, name))
      else:
        found.append(Image(os.path.join(folder, person, name), person, camera))
  tell_strays(folder, stray)
  if empty:
    logger.warning(f'{folder}: {len(empty)} folders without images ({name_some(empty)})')
  if unknown:
    raise UserError(
      f'{folder}: {len(unknown)} of {len(unknown) + len(found)} file names do not tell their camera by {pattern}: '
      f'{name_some(unknown)}. Rename or remove them, or set data.camera_pattern.'
    )
  if not found:
    raise UserError(f'{folder}: no images in it; it should hold a folder for each identity')
  return found


def name_nobody(images: dict[str, list[Image]]) -> dict[str, list[Image]]:
  """Tells junk and distractors from people by their names.

  -1 is junk. 0 (0000) is a distractor where neither train nor query knows it; else it is a person, as in MSMT17, whose
  labels begin at 0.
  """
  known = {p.identity for split in ('train', 'query') for p in images.get(split, ())}

  def called(identity: str) -> str:
    if identity == '-1':
      return 'junk'
    return 'distractor' if not identity.strip('0') and identity not in known else identity

  return {split: [p._replace(identity=called(p.identity)) for p in found] for split, found in images.items()}


def _folders(layout: Layout, root: pathlib.Path, train_with_val: bool) -> dict[str, list[pathlib.Path]]:
  """The folders of every split that is there. The release's train_all is train and val together."""
  names: dict[str, Sequence[str]] = dict(layout.folders)
  if layout.name == 'release' and not train_with_val:
    names['train'] = ('train',)
  found = {split: first_folder(root, folders) for split, folders in names.items()}
  paths = {split: [folder] for split, folder in found.items() if folder is not None}
  if layout.name == 'release' and train_with_val and 'train' in paths and paths['train'][0].name == 'train':
    paths['train'] += [root / 'val'] if (root / 'val').is_dir() else []
  return paths


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> Found:
  """Reads the splits that are there; opens no image.

  Raises:
    UserError: none is there, one is empty, or a name does not tell its camera; names the folder and the files.
  """
  base = root / RELEASE_FOLDER if layout.name == 'release' and (root / RELEASE_FOLDER).is_dir() else root
  pattern = layout.file_name or data_config.camera_pattern
  paths = _folders(layout, base, data_config.train_with_val)
  if not paths:
    wanted = ', '.join(name for names in layout.folders.values() for name in names)
    raise UserError(f'{base}: none of the folders {wanted}, each with a folder for each identity')
  if not pattern:
    logger.warning(
      "data.camera_pattern is not set: queries count as seen by another camera than all else's, so every "
      'gallery image of a person is a match'
    )
  images = {
    split: [p for folder in folders for p in _read_split(split, folder, pattern)] for split, folders in paths.items()
  }
  return Found(name_nobody(images), base)


def recognise(layout: Layout, root: pathlib.Path) -> bool:
  """Whether a split with a folder for each identity is there, and in the release's form names tell the camera."""
  base = root / RELEASE_FOLDER if layout.name == 'release' and (root / RELEASE_FOLDER).is_dir() else root
  names = []
  for folders in _folders(layout, base, True).values():
    for person in list_folders(folders[0])[0][:MANY]:
      names += list_images(folders[0] / person)[0][:1]
  if layout.name != 'release':
    return bool(names)
  # Identity and camera, as in 0002_c1...: what others call their files does not look like it by chance.
  return bool(names) and all(re.match(r'-?\d+_c\d', name, re.ASCII) for name in names)
