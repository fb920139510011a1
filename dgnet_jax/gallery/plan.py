"""Decides what a build of a gallery does: which photos are kept, embedded, left out and dropped."""

from collections.abc import Callable, Mapping, Sequence
import concurrent.futures
import contextlib
import functools
import hashlib
import logging
import os
import pathlib
from typing import NamedTuple

from dgnet_jax.data.images import decode_rgb, find_problems, raise_problems, read_encoded
from dgnet_jax.data.index import printable, summarize
from dgnet_jax.errors import UserError
from dgnet_jax.gallery.bad_files import BAD_FILES
from dgnet_jax.gallery.photos import Labeler, Listing, Photo, within
from dgnet_jax.gallery.store import GalleryStore, LostPart, Row, is_gallery, read_description

logger = logging.getLogger(__name__)


class Source(NamedTuple):
  """Where an embedding is: the number of its part, and of its row there."""

  part: int
  row: int


class Plan(NamedTuple):
  """What the gallery shall be.

  Attributes:
    kept: photos whose embeddings are in the gallery, with where.
    new: photos to embed.
    problems: what is wrong with photos that are left out, by their paths.
  """

  kept: list[tuple[Row, Source]]
  new: list[Row]
  problems: Mapping[str, str]


def has_photos(folder: pathlib.Path) -> Callable[[str], bool]:
  """Returns a function that says whether the gallery in a folder has photos at an absolute path, or in it.

  The gallery is read when that is first asked. Parts that are lost count with the roots of their photos,
  as do photos that were never embedded, because a build was interrupted.
  """

  @functools.cache
  def known() -> set[str]:
    """Returns the paths of the photos and of all folders that they are in."""
    if not is_gallery(folder):
      return set()
    store = GalleryStore(folder, read_description(folder))
    paths = {*store.description.pending, *(root for part in store.description.parts for root in part.roots)}
    for part in store.description.parts:
      with contextlib.suppress(LostPart):
        paths.update(row.photo.full_path for row in store.rows(part))
    pending = list(paths)
    while pending:
      if (parent := os.path.dirname(pending.pop())) not in paths:
        paths.add(parent)
        pending.append(parent)
    return paths

  return lambda path: path in known()


def read_rows(store: GalleryStore, is_named: Callable[[str], bool]) -> list[list[Row]]:
  """Reads the rows of every part; a part that is missing or damaged has none, so that its photos are embedded again.

  Args:
    store: the gallery.
    is_named: says whether a root is in the folders that are listed now.

  Raises:
    UserError: such a part had photos of other folders, which would not be embedded again.
  """
  rows: list[list[Row]] = []
  problems, others = [], set[str]()
  for part in store.description.parts:
    try:
      rows.append(store.rows(part))
    except LostPart as error:
      rows.append([])
      problems.append(f'{error.problem}, with {part.rows} photos')
      others.update(root for root in part.roots if not is_named(root))
  if others:
    raise UserError(
      f'{summarize(problems, "; ")}, some of folders that are not named. Name these, too, also if they are gone, so '
      f'that no photo is dropped without notice: {", ".join(map(printable, sorted(others)))}. All of their images will '
      'be in the gallery, also if only some of them were named as files before'
    )
  for problem in problems:
    logger.warning(f'{problem}; they are embedded again, if they are still in the folders')
  return rows


def plan_build(
  listing: Listing, rows: Sequence[Sequence[Row]], labeler: Labeler, *, keep_missing: bool, skip_bad: bool
) -> Plan:
  """Decides which photos are kept, moved, embedded and left out.

  Args:
    listing: the photos that there are.
    rows: those in each part of the gallery.
    labeler: finds their labels.
    keep_missing, skip_bad: as in `build.BuildOptions`.

  Raises:
    UserError: photos cannot be read and are not skipped.
  """
  photos = listing.photos
  places = [(Source(i, j), row) for i, part in enumerate(rows) for j, row in enumerate(part)]
  by_path = {row.photo.full_path: (source, row) for source, row in places}
  by_hash = {row.sha256: source for source, row in places}
  kept, unknown = [], []
  for photo, stamp in zip(photos, _stamps(photos), strict=True):
    source, row = by_path.get(photo.full_path, (None, None))
    if source is not None and row is not None and (row.size, row.modified_ns) == stamp:
      kept.append((row._replace(photo=photo, labels=labeler(photo)), source))
    else:
      unknown.append((photo, stamp))
  digests, problems = _checked([photo for photo, _ in unknown], by_hash)
  if problems and not skip_bad:
    try:
      raise_problems(list(problems.values()), len(unknown))
    except UserError as error:
      raise UserError(f'{error}\n--skip-bad leaves such images out, and lists them in {BAD_FILES}') from error
  new = []
  for photo, (size, modified_ns) in unknown:
    if photo.full_path in problems:
      continue
    row = Row(photo, labeler(photo), size, modified_ns, digests[photo.full_path])
    if row.sha256 in by_hash:
      kept.append((row, by_hash[row.sha256]))
    else:
      new.append(row)
  kept += _others(listing, places, {row.sha256 for row, _ in kept}, labeler, keep_missing=keep_missing)
  logger.info(
    f'{len(photos)} images: {len(kept)} in the gallery have embeddings, {len(new)} are embedded now, '
    f'{len(places) - len({source for _, source in kept})} embeddings are dropped'
  )
  return Plan(kept, new, problems)


def _others(
  listing: Listing,
  places: Sequence[tuple[Source, Row]],
  found: set[str],
  labeler: Labeler,
  *,
  keep_missing: bool,
) -> list[tuple[Row, Source]]:
  """Returns the photos in the gallery that stay in it, though they are not listed.

  Args:
    listing: the photos that there are.
    places: those in the gallery.
    found: SHA-256 of those that are listed and have an embedding.
    labeler: finds their labels.
    keep_missing: also those that are gone stay.
  """
  present, is_named = {photo.full_path for photo in listing.photos}, within(listing.folders)
  kept, dropped = [], []
  for source, row in places:
    path = row.photo.full_path
    if path in present:
      continue
    # Photos of folders that were not named stay, but for those that were moved into one that is.
    was_moved = row.sha256 in found and not os.path.lexists(path)
    if was_moved or (is_named(path) and not keep_missing):
      dropped.append(path)
    else:
      kept.append((row._replace(labels=labeler(row.photo)), source))
  for folder in listing.empty:
    count = sum(map(within([folder]), dropped))
    logger.warning(f'{printable(folder)}: no images there any more; {count} of its images leave the gallery')
  return kept


def _stamps(photos: Sequence[Photo]) -> list[tuple[int, int]]:
  """Returns size and time of each file; (-1, -1) if it cannot be reached, which reading it reports."""

  def stamp(photo: Photo) -> tuple[int, int]:
    with contextlib.suppress(OSError, ValueError):
      stat = os.stat(photo.full_path)
      return stat.st_size, stat.st_mtime_ns
    return -1, -1

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # for file systems on a network
    return list(pool.map(stamp, photos))


def _checked(photos: Sequence[Photo], known: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
  """Reads photos, and decodes those whose SHA-256 is not known: returns SHA-256 and problems by path."""
  digests: dict[str, str] = {}
  paths = [photo.full_path for photo in photos]

  def check(i: int) -> None:
    try:
      paths[i].encode()
    except UnicodeEncodeError:
      raise UserError(f'{summarize([paths[i]])}: the name is not text, which a gallery needs; rename it') from None
    content = read_encoded(paths[i])
    digests[paths[i]] = hashlib.sha256(content).hexdigest()
    if digests[paths[i]] not in known:
      decode_rgb(content, paths[i]).close()

  problems = find_problems(check, paths, threads=os.cpu_count() or 1, action='checking images')
  return digests, {paths[i]: problem for i, problem in problems.items()}
