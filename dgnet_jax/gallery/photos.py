"""The photos of a gallery: which files there are, and whom, which camera and which track each of them shows."""

from collections.abc import Mapping, Sequence
import csv
import logging
import os
import pathlib
import re
from typing import NamedTuple

from dgnet_jax.data.index import printable, summarize
from dgnet_jax.data.readers.listing import list_recursively, warn_about_skipped
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import open_table
from dgnet_jax.utils.paths import local_text

logger = logging.getLogger(__name__)

FOLDERS = 'folder'  # the value of `tracks` that makes every folder a track
TRACK_COLUMNS = ('path', 'track')


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


def list_photos(images: Sequence[str | os.PathLike[str]]) -> tuple[list[Photo], list[str]]:
  """Lists the images in folders and their subfolders, and single files, each file once; does not open them.

  Args:
    images: paths of folders, which become the roots of their photos, and of files, whose root is their folder.

  Returns:
    The photos, and the absolute paths of the folders.

  Raises:
    UserError: a folder has no images or cannot be read, a path is not of this machine, or there are none.
  """
  photos: dict[str, Photo] = {}
  folders = []
  for item in images:
    path = os.path.abspath(local_text(item))
    if os.path.isdir(path):
      found, others = list_recursively(pathlib.Path(path))
      skipped = [os.path.relpath(other, path) for other in others]
      if not found:
        contents = f'; it contains {summarize(skipped)}' if skipped else ''
        raise UserError(f'{printable(path)}: no images in this folder and its subfolders{contents}')
      warn_about_skipped(pathlib.Path(path), skipped)
      folders.append(path)
    else:
      path, found = os.path.dirname(path), [path]
    for file in found:
      photos.setdefault(file, Photo(path, os.path.relpath(file, path)))
  if not photos:
    raise UserError('images: none given')
  return list(photos.values()), folders


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
    UserError: a pattern is wrong, or the file cannot be read or is not as it should be.
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

  def warn_about_gaps(self, photos: Sequence[Photo]) -> None:
    """Warns if patterns find nothing in photos, or if the table of tracks names files that are not among them."""
    for group, pattern in self._patterns.items():
      without = [photo.path for photo in photos if not self._found(group, photo)] if pattern else []
      if without:
        logger.warning(f'no {group} in {len(without)} of {len(photos)} paths, by {pattern}: {summarize(without)}')
    unknown = sorted(self._tracks.keys() - {photo.full_path for photo in photos})
    if unknown:
      logger.warning(
        f'{len(unknown)} of {len(self._tracks)} paths in the table of tracks are not among the images: '
        f'{summarize(unknown)}'
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
    path: a CSV file with the columns path, relative to its folder, and track, among others.

  Returns:
    The track of every photo, by its absolute path.

  Raises:
    UserError: the file cannot be read, a column is missing, or a row lacks a value or names a photo twice.
  """
  folder = os.path.abspath(path.parent)
  tracks: dict[str, str] = {}
  try:
    with open_table(path) as file:
      reader = csv.DictReader(file)
      missing = [name for name in TRACK_COLUMNS if name not in (reader.fieldnames or ())]
      if missing:
        raise UserError(f'{path}: no column {", ".join(missing)}; the first line must be {",".join(TRACK_COLUMNS)}')
      for row in reader:
        name, track = row['path'], row['track']
        photo = os.path.normpath(os.path.join(folder, name)) if name else ''
        if not photo or not track or '\0' in photo or tracks.setdefault(photo, track) != track:
          raise UserError(f'{path}, line {reader.line_num}: needs a path, which is in one track only, and a track')
  except (OSError, csv.Error, UnicodeError) as error:
    raise UserError(f'{path}: cannot be read ({getattr(error, "strerror", None) or error})') from error
  if not tracks:
    raise UserError(f'{path}: no tracks in it')
  return tracks
