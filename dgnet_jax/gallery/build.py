"""Builds a gallery on disk and brings it up to date: only new and changed photos are embedded.

A photo whose size and time are unchanged is the same; otherwise its SHA-256 decides. A file that was moved or copied
has the SHA-256 of one in the gallery, and takes its embedding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import contextlib
import csv
import dataclasses
import hashlib
import logging
import os
import pathlib
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dgnet_jax.data.images import decode_rgb, find_problems, raise_problems, read_encoded
from dgnet_jax.data.index import summarize
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.gallery.photos import FOLDERS, Labeler, Photo, list_photos
from dgnet_jax.gallery.store import (
  BAD_FILES,
  ROWS,
  Description,
  GalleryStore,
  LostPart,
  Part,
  Row,
  check_networks,
  is_gallery,
  read_description,
)
from dgnet_jax.training.preemption import stop_signals
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.locks import LOCK_FILE, exclusive
from dgnet_jax.utils.text import ANY_NAME

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_PARTS = 60.0  # what a killed build loses at most, beside the checks of its photos

Embed = Callable[[Sequence[str]], Iterator[npt.NDArray[np.float32]]]


@dataclasses.dataclass(frozen=True)
class BuildOptions:
  """How a gallery is built.

  Attributes:
    identity_pattern, camera_pattern, tracks: as for `photos.Labeler`; None is as the gallery was built before.
    keep_missing: photos that are gone stay in the gallery.
    skip_bad: photos that cannot be read are left out, and listed in bad.csv.
  """

  identity_pattern: str | None = None
  camera_pattern: str | None = None
  tracks: str | None = None
  keep_missing: bool = False
  skip_bad: bool = False


class _Source(NamedTuple):
  """Where an embedding is: the number of its part, and of its row there."""

  part: int
  row: int


class _Plan(NamedTuple):
  """What the gallery shall be.

  Attributes:
    kept: photos whose embeddings are in the gallery, with where.
    new: photos to embed.
    problems: what is wrong with photos that are left out, by their paths.
  """

  kept: list[tuple[Row, _Source]]
  new: list[Row]
  problems: Mapping[str, str]


def build_gallery(
  folder: pathlib.Path,
  images: Sequence[str | os.PathLike[str]],
  embed: Embed,
  networks: Description,
  options: BuildOptions,
) -> None:
  """Makes a gallery of photos, or brings it up to date.

  Photos of folders that are not named stay as they are. A build that was stopped or killed goes on where it was.

  Args:
    folder: of the gallery; created if missing.
    images: folders and files.
    embed: yields the embeddings f32[n, D] of the files at the given paths, batch by batch, and logs its progress.
    networks: describes what embeds, without parts.
    options: the patterns, and what to do about photos that are gone or bad.

  Raises:
    UserError: photos cannot be read and are not skipped; or the folder holds something else, or a gallery by other
      networks, or is in use by another build.
    Interrupted: SIGINT or SIGTERM was received; what is embedded is in the gallery.
  """
  photos, folders = list_photos(images)
  if not is_gallery(folder) and folder.is_dir() and any(folder.glob('*.parquet')):
    raise UserError(f'{folder}: holds Parquet files of something else; choose another folder')
  folder.mkdir(parents=True, exist_ok=True)
  with exclusive(folder / LOCK_FILE, f'the gallery {folder}'):
    store = GalleryStore(folder, _described(folder, networks, options))
    labeler = Labeler(store.description.identity_pattern, store.description.camera_pattern, store.description.tracks)
    labeler.warn_about_gaps(photos)
    rows = _rows(store)
    plan = _plan(photos, folders, rows, labeler, options)
    _list_bad(folder, plan.problems)
    _rewrite(store, rows, plan)
    _embed(store, plan.new, embed)
    logger.info(f'gallery of {store.description.num_photos} images: {folder}')


def _described(folder: pathlib.Path, networks: Description, options: BuildOptions) -> Description:
  """Returns the description of the gallery with the options; raises UserError if it is by other networks."""
  earlier = networks
  if is_gallery(folder):
    earlier = read_description(folder)
    check_networks(folder, earlier, networks)
  tracks = options.tracks
  if tracks and tracks != FOLDERS:
    tracks = os.path.abspath(tracks)
  return dataclasses.replace(
    earlier,
    identity_pattern=earlier.identity_pattern if options.identity_pattern is None else options.identity_pattern,
    camera_pattern=earlier.camera_pattern if options.camera_pattern is None else options.camera_pattern,
    tracks=earlier.tracks if tracks is None else tracks,
  )


def _rows(store: GalleryStore) -> list[list[Row]]:
  """Reads the rows of every part; a part that is missing or damaged has none, so that its photos are embedded again."""
  rows: list[list[Row]] = []
  for part in store.description.parts:
    try:
      rows.append(store.rows(part))
    except LostPart as error:
      logger.warning(f'{error}; its {part.rows} photos are embedded again')
      rows.append([])
  return rows


def _plan(
  photos: Sequence[Photo],
  folders: Sequence[str],
  rows: Sequence[Sequence[Row]],
  labeler: Labeler,
  options: BuildOptions,
) -> _Plan:
  """Decides which photos are kept, moved, embedded and left out."""
  places = [(_Source(i, j), row) for i, part in enumerate(rows) for j, row in enumerate(part)]
  by_path = {row.photo.full_path: (source, row) for source, row in places}
  by_hash = {row.sha256: source for source, row in places}
  stamps = _stamps(photos)
  kept, unknown = [], []
  for photo, stamp in zip(photos, stamps, strict=True):
    source, row = by_path.get(photo.full_path, (None, None))
    if source is not None and row is not None and (row.size, row.modified_ns) == stamp:
      kept.append((row._replace(labels=labeler(row.photo)), source))
    else:
      unknown.append((photo if row is None else row.photo, stamp))
  digests, problems = _checked([photo for photo, _ in unknown], by_hash)
  if problems and not options.skip_bad:
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
  present = {photo.full_path for photo in photos}
  missing = [(row, source) for source, row in places if row.photo.full_path not in present]
  hashes = {row.sha256 for row, _ in kept}
  for row, source in missing:
    # Photos of folders that were not named stay, but for those that were moved into one that is.
    is_named = any(row.photo.full_path.startswith(os.path.join(name, '')) for name in folders)
    was_moved = row.sha256 in hashes and not os.path.lexists(row.photo.full_path)
    if not was_moved and (options.keep_missing or not is_named):
      kept.append((row._replace(labels=labeler(row.photo)), source))
  logger.info(
    f'{len(photos)} images: {len(kept)} in the gallery have embeddings, {len(new)} are embedded now, '
    f'{len(places) - len({source for _, source in kept})} embeddings are dropped'
  )
  return _Plan(kept, new, problems)


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


def _list_bad(folder: pathlib.Path, problems: Mapping[str, str]) -> None:
  """Writes what is wrong with the photos that are left out to bad.csv; removes it if there are none."""
  path = folder / BAD_FILES
  if not problems:
    path.unlink(missing_ok=True)
    return
  with atomic_file(path) as temporary, temporary.open('w', encoding='utf-8', errors=ANY_NAME, newline='') as file:
    csv.writer(file).writerows([('path', 'problem'), *problems.items()])
  logger.warning(f'{len(problems)} images cannot be read and are left out: {path}')


def _rewrite(store: GalleryStore, rows: Sequence[Sequence[Row]], plan: _Plan) -> None:
  """Makes the kept photos those of the gallery: parts that stay as they are, and new ones for all other photos."""
  wanted: dict[int, dict[int, list[Row]]] = {}
  for row, source in plan.kept:
    wanted.setdefault(source.part, {}).setdefault(source.row, []).append(row)
  parts = store.description.parts
  same = {i for i, part in enumerate(rows) if part and wanted.get(i) == {j: [row] for j, row in enumerate(part)}}
  small = {i for i in same if 2 * len(rows[i]) < ROWS}
  if len(small) > 1 or (small and wanted.keys() - same):
    same -= small  # they become one with others
  kept = [part for i, part in enumerate(parts) if i in same]
  moved = [
    (row, _Source(i, j)) for i in sorted(wanted.keys() - same) for j in sorted(wanted[i]) for row in wanted[i][j]
  ]
  written = []
  for start in range(0, len(moved), ROWS):
    chunk = moved[start : start + ROWS]
    written.append(store.add([row for row, _ in chunk], _gathered(store, [source for _, source in chunk])))
  store.replace(dataclasses.replace(store.description, parts=(*kept, *written), num_pending=len(plan.new)))
  store.remove_others()


def _gathered(store: GalleryStore, sources: Sequence[_Source]) -> npt.NDArray[np.float32]:
  """Reads the embeddings at places that are sorted by part: f32[N, D]."""
  gathered = np.empty((len(sources), store.description.size), np.float32)
  numbers = np.array(sources).reshape(-1, 2)
  for number in np.unique(numbers[:, 0]):
    here = numbers[:, 0] == number
    gathered[here] = store.embeddings(store.description.parts[number])[numbers[here, 1]]
  return gathered


def _embed(store: GalleryStore, new: Sequence[Row], embed: Embed) -> None:
  """Embeds photos, and adds a part to the gallery whenever one is full or a minute has passed."""
  done = 0
  waiting: list[npt.NDArray[np.float32]] = []
  last_part = time.monotonic()
  with stop_signals() as stopped:
    for batch in embed([row.photo.full_path for row in new]) if new else ():
      waiting.append(batch)
      num_waiting = sum(map(len, waiting))
      is_time = time.monotonic() - last_part > SECONDS_BETWEEN_PARTS
      if num_waiting >= ROWS or is_time or stopped() or done + num_waiting == len(new):
        _add(store, new[done : done + num_waiting], np.concatenate(waiting))
        done, waiting, last_part = done + num_waiting, [], time.monotonic()
        if stopped() and done < len(new):
          raise Interrupted(f'stopped: {done} of {len(new)} images are embedded. Run the same command to go on.')
  if done != len(new):
    raise ValueError(f'{done} embeddings of {len(new)} images')


def _add(store: GalleryStore, rows: Sequence[Row], embeddings: npt.NDArray[np.float32]) -> None:
  """Adds photos to the gallery."""
  parts: list[Part] = []
  for start in range(0, len(rows), ROWS):
    parts.append(store.add(rows[start : start + ROWS], embeddings[start : start + ROWS]))
  description = store.description
  store.replace(
    dataclasses.replace(
      description, parts=(*description.parts, *parts), num_pending=description.num_pending - len(rows)
    )
  )
