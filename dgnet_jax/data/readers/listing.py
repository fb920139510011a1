"""What all readers share: listing folders, and the result of a reader."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import logging
import os
import pathlib

from dgnet_jax.data.index import LabeledImage, printable, summarize
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


# Those of other formats, too, so that they are reported instead of being skipped.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.webp', '.gif', '.tif', '.tiff', '.ppm')


@dataclasses.dataclass(frozen=True)
class ReadImages:
  """What a reader returns.

  Attributes:
    images: the images of every split that exists.
    root, variant: as in `DatasetIndex`.
  """

  images: Mapping[str, Sequence[LabeledImage]]
  root: pathlib.Path
  variant: str = ''


def _is_image(entry: os.DirEntry[str]) -> bool:
  if entry.name.startswith('.') or not entry.name.lower().endswith(IMAGE_SUFFIXES):
    return False
  try:
    # A dangling link counts as an image, so that it is reported as unreadable instead of being skipped.
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
  except OSError:  # a link to itself
    return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir() and not entry.name.startswith('.')
  except OSError:
    return False


def _partition(folder: pathlib.Path, is_wanted: Callable[[os.DirEntry[str]], bool]) -> tuple[list[str], list[str]]:
  """Returns the sorted names in `folder` that are wanted, and the others.

  Raises:
    UserError: the folder cannot be read.
  """
  try:
    with os.scandir(folder) as entries:
      names = sorted((entry.name, is_wanted(entry)) for entry in entries)
  except OSError as error:
    raise UserError(f'{printable(str(folder))}: cannot be read ({error.strerror})') from error
  return [name for name, wanted in names if wanted], [name for name, wanted in names if not wanted]


def list_images(folder: pathlib.Path) -> tuple[list[str], list[str]]:
  """Returns the sorted names of the images in `folder`, and of everything else; raises UserError if unreadable."""
  return _partition(folder, _is_image)


def list_folders(folder: pathlib.Path) -> tuple[list[str], list[str]]:
  """Returns the sorted names of the folders in `folder`, and of everything else; raises UserError if unreadable."""
  return _partition(folder, _is_folder)


def list_recursively(folder: pathlib.Path) -> tuple[list[str], list[str]]:
  """Returns the sorted paths of all images in `folder` and its subfolders, and of the other files in them.

  Hidden entries are left out, and a link back to a folder above is not followed. A folder with two links is listed
  twice.

  Raises:
    UserError: a folder cannot be read.
  """
  images: list[str] = []
  others: list[str] = []
  pending: list[tuple[pathlib.Path, frozenset[str]]] = [(folder, frozenset())]  # with the real paths of those above
  while pending:
    current, above = pending.pop()
    real = os.path.realpath(current)
    if real in above:
      continue
    files, rest = list_images(current)
    folders = list_folders(current)[0]
    images += [os.path.join(current, name) for name in files]
    others += [os.path.join(current, name) for name in rest if name not in folders and not name.startswith('.')]
    pending += [(current / name, above | {real}) for name in folders]
  return sorted(images), sorted(others)


def warn_about_skipped(folder: pathlib.Path, names: Sequence[str]) -> None:
  """Logs how many entries of `folder` were skipped, if any."""
  if names:
    logger.warning(f'{folder}: skipped {len(names)} entries that are not images ({summarize(names)})')


def first_folder(root: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
  """Returns the first of these folders of `root` that exists."""
  return next((root / name for name in names if (root / name).is_dir()), None)
