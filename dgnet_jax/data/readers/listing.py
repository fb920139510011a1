"""What all readers share: what lies in a folder, and what one of them gives."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import logging
import os
import pathlib

from dgnet_jax.data.index import Image, name_some, printable
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.ppm')


@dataclasses.dataclass(frozen=True)
class Found:
  """A data set's images by split, the folder that they are in, and the variant (`DatasetIndex`)."""

  images: Mapping[str, Sequence[Image]]
  root: pathlib.Path
  variant: str = ''


def _is_image(entry: os.DirEntry[str]) -> bool:
  if entry.name.startswith('.') or not entry.name.lower().endswith(IMAGE_SUFFIXES):
    return False
  try:
    # A link to nothing is an image that cannot be read: it is named when it is, and not skipped with a shrug.
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
  except OSError:  # a link that leads to itself
    return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir() and not entry.name.startswith('.')
  except OSError:
    return False


def _list(folder: pathlib.Path, wanted: Callable[[os.DirEntry[str]], bool]) -> tuple[list[str], list[str]]:
  """Sorted names in `folder` that are wanted, and the others.

  Raises:
    UserError: the folder cannot be read.
  """
  try:
    with os.scandir(folder) as entries:
      names = sorted((entry.name, wanted(entry)) for entry in entries)
  except OSError as error:
    raise UserError(f'{printable(str(folder))}: cannot be read ({error.strerror})') from error
  return [name for name, is_wanted in names if is_wanted], [name for name, is_wanted in names if not is_wanted]


def list_images(folder: pathlib.Path) -> tuple[list[str], list[str]]:
  """Sorted names of the images in `folder`, and of all else; raises UserError if it cannot be read."""
  return _list(folder, _is_image)


def list_folders(folder: pathlib.Path) -> tuple[list[str], list[str]]:
  """Sorted names of the folders in `folder`, and of all else; raises UserError if it cannot be read."""
  return _list(folder, _is_folder)


def tell_strays(folder: pathlib.Path, stray: Sequence[str]) -> None:
  """Counts what was skipped."""
  if stray:
    logger.warning(f'{folder}: {len(stray)} entries that are no images skipped ({name_some(stray)})')


def first_folder(root: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
  """The first of these folders that is there."""
  return next((root / name for name in names if (root / name).is_dir()), None)
