"""The photos of a gallery: which files there are, and whom, which camera and which track each of them shows."""

from collections.abc import Callable, Collection, Mapping, Sequence
import csv
import logging
import os
import pathlib
import re
from typing import NamedTuple

from dgnet_jax.data.index import printable, summarize
from dgnet_jax.data.readers.listing import list_recursively
from dgnet_jax.data.readers.table import is_empty, read_header
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import open_table
from dgnet_jax.utils.paths import local_text

logger = logging.getLogger(__name__)

FOLDERS = 'folder'  # the value of `tracks` that makes every folder a track
TRACK_COLUMNS = ('path', 'track')

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class TracksError(UserError):
  """The table of tracks cannot be used."""


class Photo(NamedTuple):
  """An image file: its path within a folder, `root`, which is absolute."""

  root: str
  path: str

  @property
  def full_path(self) -> str:
    """The absolute path."""
    return os.path.join(self.root, self.path)


class Labels(NamedTuple):
  """What is known about a photo; None for what is not."""

  identity: str | None
  camera: str | None
  track: str | None


class Listing(NamedTuple):
  """The photos of the folders and files that were named.

  Attributes:
    photos: each file once.
    folders: absolute paths of the folders, and of files that are gone.
    empty: those of them that have no photos any more.
    skipped: names of what is no image, by folder.
  """

  photos: list[Photo]
  folders: list[str]
  empty: list[str]
  skipped: dict[str, list[str]]


def within(folders: Sequence[str]) -> Callable[[str], bool]:
  """Returns a function that says whether an absolute path is one of the folders, or in one of them."""
  prefixes = tuple(os.path.join(folder, '') for folder in folders)
  return lambda path: os.path.join(path, '').startswith(prefixes)


def list_photos(images: Paths, is_known: Callable[[str], bool]) -> Listing:
  """Lists the images in folders and their subfolders, and single files; does not open them.

  Args:
    images: one path or several: of folders, which become the roots of their photos, and of files, whose root is their
      folder.
    is_known: says whether the gallery has photos at an absolute path or in it. Such a path may be missing, or have no
      images any more.

  Raises:
    UserError: another folder has no images, a folder cannot be read, a path is not of this machine, or there are none.
  """
  listing, photos = Listing([], [], [], {}), dict[str, Photo]()
  for item in [images] if isinstance(images, str | os.PathLike) else images:
    if not isinstance(item, str | os.PathLike):
      raise UserError(f'images: {type(item).__name__} is not a path; a gallery on disk is of files and folders')
    path = os.path.abspath(local_text(item))
    found, others = list_recursively(pathlib.Path(path)) if os.path.isdir(path) else ([], [])
    skipped = [os.path.relpath(other, path) for other in others]
    if os.path.isdir(path) or (not os.path.lexists(path) and is_known(path)):
      listing.folders.append(path)
      if not found and not is_known(path):
        contents = f'; it contains {summarize(skipped)}' if skipped else ''
        raise UserError(f'{printable(path)}: no images in this folder and its subfolders{contents}')
      if not found:
        listing.empty.append(path)
      if skipped:
        listing.skipped[path] = skipped
    else:
      path, found = os.path.dirname(path), [path]
    for file in found:
      photos.setdefault(file, Photo(path, os.path.relpath(file, path)))
  if not photos and not listing.empty:
    raise UserError('images: none given')
  return listing._replace(photos=list(photos.values()))


def check_pattern(pattern: str, group: str) -> None:
  """Raises UserError if `pattern` is not a regular expression with the group `group`."""
  try:
    has_group = not pattern or group in re.compile(pattern).groupindex
  except re.error as error:
    raise UserError(f'--{group}-pattern={pattern}: not a regular expression ({error})') from error
  if not has_group:
    raise UserError(f'--{group}-pattern={pattern}: has no group named {group}, like (?P<{group}>[^_]+)')


class Labeler:
  """Finds the labels of photos.

  Args:
    identity_pattern: regular expression with the group identity, searched in the path within the root; '' finds none.
    camera_pattern: likewise, with the group camera.
    tracks: 'folder': the photos of one folder are a track; or the path of a CSV file with the columns path (relative to
      the file's folder) and track; '' knows no tracks.

  Raises:
    TracksError: the file cannot be read or is not as it should be.
    UserError: a pattern is wrong.
  """

  def __init__(self, identity_pattern: str = '', camera_pattern: str = '', tracks: str = '') -> None:
    check_pattern(identity_pattern, 'identity')
    check_pattern(camera_pattern, 'camera')
    self._patterns = {'identity': identity_pattern, 'camera': camera_pattern}
    self._by_folder = tracks == FOLDERS
    self._tracks = {} if self._by_folder or not tracks else read_tracks(pathlib.Path(tracks))

  def __call__(self, photo: Photo) -> Labels:
    """Returns what is known about a photo."""
    return Labels(self._found('identity', photo), self._found('camera', photo), self._track(photo))

  def warn_about_gaps(self, listing: Listing, known: Collection[str]) -> None:
    """Warns if patterns find nothing in photos, or if the table of tracks names photos that there are not.

    Args:
      listing: the photos. Those that the table has of other folders may be added later.
      known: absolute paths of the photos in the gallery.
    """
    photos = listing.photos
    for group, pattern in self._patterns.items():
      without = [photo.path for photo in photos if not self._found(group, photo)] if pattern else []
      if without:
        logger.warning(f'no {group} in {len(without)} of {len(photos)} paths, by {pattern}: {summarize(without)}')
    unknown = self._tracks.keys() - {photo.full_path for photo in photos} - set(known)
    if len(unknown) < len(self._tracks):
      unknown = set(filter(within(listing.folders), unknown))
    if unknown:
      logger.warning(
        f'{len(unknown)} of {len(self._tracks)} paths in the table of tracks are not among the images: '
        f'{summarize(sorted(unknown))}'
      )

  def _found(self, group: str, photo: Photo) -> str | None:
    pattern = self._patterns[group]
    match = re.search(pattern, pathlib.PurePath(photo.path).as_posix()) if pattern else None
    return (match[group] or None) if match else None

  def _track(self, photo: Photo) -> str | None:
    return os.path.dirname(photo.full_path) if self._by_folder else self._tracks.get(photo.full_path)


def read_tracks(path: pathlib.Path) -> Mapping[str, str]:
  """Reads a table of tracks.

  Args:
    path: a CSV file with the columns path, relative to its folder, and track, among others; separated by commas,
      semicolons, tabs or bars.

  Returns:
    The track of every photo, by its absolute path.

  Raises:
    TracksError: the file cannot be read, a column is missing, or a row lacks a value or names a photo twice.
  """
  folder = os.path.abspath(path.parent)
  tracks: dict[str, str] = {}
  shown = printable(str(path))
  try:
    with open_table(path) as file:
      separator, names, num_lines = read_header(file, TRACK_COLUMNS, ','.join(TRACK_COLUMNS))
      reader = csv.DictReader(file, names, delimiter=separator)
      for row in reader:
        if is_empty(row):
          continue
        name, track = row['path'], row['track']
        photo = os.path.normpath(os.path.join(folder, name)) if name else ''
        if not photo or not track or '\0' in photo or tracks.setdefault(photo, track) != track:
          line = num_lines + reader.line_num
          raise TracksError(f'{shown}, line {line}: needs a path, which is in one track only, and a track')
  except TracksError:
    raise
  except UserError as error:
    raise TracksError(f'{shown}: {error}') from error
  except (OSError, csv.Error, UnicodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise TracksError(
      f'{shown}: cannot be read ({reason}). --tracks is {FOLDERS}, or a CSV file; empty (--tracks=), it is no tracks'
    ) from error
  if not tracks:
    raise TracksError(f'{shown}: no tracks in it')
  return tracks
