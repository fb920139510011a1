"""A folder for each split, identity and camera in the file name: Market-1501 and the data sets that followed it."""

import os
import pathlib
import re

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.index import UNIDENTIFIED, LabeledImage, summarize
from dgnet_jax.data.layouts import Layout
from dgnet_jax.data.readers.listing import ReadImages, first_folder, list_images, warn_about_skipped
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import read_text

SAMPLE = 20  # file names inspected to detect a layout
UNIDENTIFIED_NAMES = {number: name for name, number in UNIDENTIFIED.items()}


def match_name(layout: Layout, name: str) -> re.Match[str] | None:
  """Matches a file name, without its extension, against the layout's pattern."""
  return re.fullmatch(layout.file_name, os.path.splitext(name)[0], re.ASCII)


def _labeled(folder: pathlib.Path, match: re.Match[str], name: str) -> LabeledImage:
  number = int(match['identity'])
  identity = UNIDENTIFIED_NAMES.get(number, f'{number:04d}')
  return LabeledImage(os.path.join(folder, name), identity, str(int(match['camera'])))


def _select_listed(path: pathlib.Path, folder: pathlib.Path, names: list[str]) -> list[str]:
  """Returns the file names that the list at `path` contains; all of them if there is no list.

  Raises:
    UserError: the list cannot be read, or names files that do not exist.
  """
  try:
    lines = read_text(path, errors='surrogateescape').splitlines()
  except FileNotFoundError:
    return names
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
  listed = {line.strip() for line in lines} - {''}
  missing = sorted(listed - set(names))
  if missing:
    raise UserError(f'{path}: {len(missing)} of {len(listed)} images are not in {folder}: {summarize(missing)}')
  return [name for name in names if name in listed]


def _read_folder(layout: Layout, split: str, folder: pathlib.Path) -> list[LabeledImage]:
  """Reads one split.

  Raises:
    UserError: a file name does not match, or there are no images.
  """
  names, skipped = list_images(folder)
  if split in layout.name_lists:
    listed = _select_listed(folder.parent / layout.name_lists[split], folder, names)
    skipped, names = skipped + sorted(set(names) - set(listed)), listed
  warn_about_skipped(folder, skipped)
  if not names:
    raise UserError(f'{folder}: no images in it')
  matches = {name: match_name(layout, name) for name in names}
  lowest = min(UNIDENTIFIED.values())
  wrong = [name for name, match in matches.items() if match is None or int(match['identity']) < lowest]
  if wrong:
    raise UserError(
      f'{folder}: {len(wrong)} of {len(names)} file names are not like {layout.example}: {summarize(wrong)}. '
      'Rename or remove them.'
    )
  return [_labeled(folder, match, name) for name, match in matches.items() if match is not None]


def _base(layout: Layout, root: pathlib.Path, variant: str) -> tuple[pathlib.Path, str]:
  """Returns the folder that contains the splits, and its variant; `root` may be the folder of one variant."""
  if not layout.variants:
    return root, ''
  return (root, root.name) if root.name in layout.variants else (root / variant, variant)


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> ReadImages:
  """Reads the splits that exist, without opening any image.

  Raises:
    UserError: there are no splits, a split is empty, or a file name does not match.
  """
  base, variant = _base(layout, root, data_config.boxes)
  images = {}
  for split, names in layout.folders.items():
    folder = first_folder(base, names)
    if folder is not None:
      images[split] = _read_folder(layout, split, folder)
  if not images:
    expected = ', '.join(name for names in layout.folders.values() for name in names)
    raise UserError(f'{base}: none of the folders of {layout.title} exists: {expected}')
  return ReadImages(images, base, variant)


def matches(layout: Layout, root: pathlib.Path) -> bool:
  """Returns True if a folder of the layout exists and most of its first file names match."""
  bases = [root] if root.name in layout.variants or not layout.variants else [root / name for name in layout.variants]
  for base in bases:
    for candidates in layout.folders.values():
      folder = first_folder(base, candidates)
      names = list_images(folder)[0][:SAMPLE] if folder is not None else []
      if names:
        return 2 * sum(match_name(layout, name) is not None for name in names) > len(names)
  return False
