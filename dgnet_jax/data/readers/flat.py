"""A folder for each split, identity and camera in the file's name: Market-1501 and those that followed it."""

import os
import pathlib
import re

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.index import DISTRACTOR, JUNK, NOBODY, Image, name_some
from dgnet_jax.data.layouts import Layout
from dgnet_jax.data.readers.listing import Found, first_folder, list_images, tell_strays
from dgnet_jax.errors import UserError

SAMPLE = 20  # names looked at to recognise a layout
NOBODY_NAMES = {number: name for name, number in NOBODY.items()}


def _match(layout: Layout, name: str) -> re.Match[str] | None:
  return re.fullmatch(layout.file_name, os.path.splitext(name)[0], re.ASCII)


def _image(folder: pathlib.Path, match: re.Match[str], name: str) -> Image:
  identity = int(match['identity'])
  called = NOBODY_NAMES.get(identity, f'{identity:04d}')
  return Image(os.path.join(folder, name), called, str(int(match['camera'])))


def _listed(path: pathlib.Path, folder: pathlib.Path, there: list[str]) -> list[str]:
  """The names that a list has; all of `there` when there is no list.

  Raises:
    UserError: the list cannot be read, or names files that are not there.
  """
  try:
    lines = path.read_text(encoding='utf-8', errors='surrogateescape').splitlines()
  except FileNotFoundError:
    return there
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
  wanted = {line.strip() for line in lines} - {''}
  missing = sorted(wanted - set(there))
  if missing:
    raise UserError(f'{path}: {len(missing)} of {len(wanted)} images are not in {folder}: {name_some(missing)}')
  return [name for name in there if name in wanted]


def _read_folder(layout: Layout, split: str, folder: pathlib.Path) -> list[Image]:
  """One split.

  Raises:
    UserError: a name does not match, or there is no image; names the folder and the files.
  """
  names, stray = list_images(folder)
  if split in layout.name_lists:
    listed = _listed(folder.parent / layout.name_lists[split], folder, names)
    stray, names = stray + sorted(set(names) - set(listed)), listed
  tell_strays(folder, stray)
  if not names:
    raise UserError(f'{folder}: no images in it')
  matches = {name: _match(layout, name) for name in names}
  wrong = [name for name, match in matches.items() if match is None or int(match['identity']) < min(JUNK, DISTRACTOR)]
  if wrong:
    raise UserError(
      f'{folder}: {len(wrong)} of {len(names)} file names are not like {layout.example}: {name_some(wrong)}. '
      'Rename or remove them.'
    )
  return [_image(folder, match, name) for name, match in matches.items() if match is not None]


def _base(layout: Layout, root: pathlib.Path, variant: str) -> tuple[pathlib.Path, str]:
  """The folder that holds the splits, and its variant: `root` may be that of one variant."""
  if not layout.variants:
    return root, ''
  return (root, root.name) if root.name in layout.variants else (root / variant, variant)


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> Found:
  """Reads the splits that are there; opens no image.

  Raises:
    UserError: none is there, one is empty, or a name does not match; names the folder and the files.
  """
  base, variant = _base(layout, root, data_config.boxes)
  images = {}
  for split, names in layout.folders.items():
    folder = first_folder(base, names)
    if folder is not None:
      images[split] = _read_folder(layout, split, folder)
  if not images:
    wanted = ', '.join(name for names in layout.folders.values() for name in names)
    raise UserError(f'{base}: none of the folders that {layout.title} has: {wanted}')
  return Found(images, base, variant)


def recognise(layout: Layout, root: pathlib.Path) -> bool:
  """Whether a folder of the layout is there and most of its first names are of its kind."""
  bases = [root] if root.name in layout.variants or not layout.variants else [root / name for name in layout.variants]
  for base in bases:
    folders = [first_folder(base, names) for names in layout.folders.values()]
    for folder in folders:
      names = list_images(folder)[0][:SAMPLE] if folder is not None else []
      if names:
        return 2 * sum(_match(layout, name) is not None for name in names) > len(names)
  return False
