"""Builds a gallery on disk and brings it up to date: only new and changed photos are embedded.

A photo whose size and time are unchanged is the same; otherwise its SHA-256 decides. A file that was moved or copied
has the SHA-256 of one in the gallery, and takes its embedding.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import logging
import os
import pathlib
import time
import uuid

import numpy as np
import numpy.typing as npt

from dgnet_jax.data.readers.listing import warn_about_skipped
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.gallery.bad_files import BAD_FILES, read_bad_files, write_bad_files
from dgnet_jax.gallery.photos import FOLDERS, Labeler, Listing, Paths, TracksError, list_photos, within
from dgnet_jax.gallery.plan import Plan, Source, has_photos, plan_build, read_rows
from dgnet_jax.gallery.store import (
  DESCRIPTION,
  ROWS,
  Description,
  GalleryStore,
  Part,
  Row,
  check_networks,
  is_gallery,
  read_description,
)
from dgnet_jax.training.preemption import stop_signals
from dgnet_jax.utils.locks import LOCK_FILE, exclusive
from dgnet_jax.utils.text import printable

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_PARTS = 60.0  # what a killed build loses at most, beside the checks of its photos

Embed = Callable[[Sequence[str]], Iterator[npt.NDArray[np.float32]]]


@dataclasses.dataclass(frozen=True)
class BuildOptions:
  """How a gallery is built.

  Attributes:
    identity_pattern, camera_pattern, tracks: as for `photos.Labeler`, '' for none; None for those of the last build.
    keep_missing: photos that are gone stay in the gallery.
    skip_bad: photos that cannot be read are left out, and listed in bad.csv.
  """

  identity_pattern: str | None = None
  camera_pattern: str | None = None
  tracks: str | None = None
  keep_missing: bool = False
  skip_bad: bool = False


def build_gallery(
  folder: pathlib.Path, images: Paths, embed: Embed, networks: Description, options: BuildOptions
) -> None:
  """Makes a gallery of photos, or brings it up to date.

  Photos of folders that are not named stay as they are. A build that was stopped or killed goes on where it was.

  Args:
    folder: of the gallery; created if missing.
    images: folders and files. One that the gallery has photos of may be missing or empty: its photos are gone.
    embed: yields the embeddings f32[n, D] of the files at the given paths, batch by batch, and logs its progress.
    networks: describes what embeds, without parts.
    options: the patterns, and what to do about photos that are gone or bad.

  Raises:
    UserError: photos cannot be read and are not skipped; or the folder is a file, holds something else, or a gallery by
      other networks, or is in use by another build; or a part of it was lost, with photos of folders not named.
    Interrupted: SIGINT or SIGTERM was received; what is embedded is in the gallery.
  """
  if folder.exists() and not folder.is_dir():
    raise UserError(f'{folder}: is a file; a gallery is a folder')
  listing = list_photos(images, has_photos(folder))
  for name, skipped in listing.skipped.items():
    warn_about_skipped(pathlib.Path(name), skipped)
  if not is_gallery(folder) and folder.is_dir() and any(folder.glob('*.parquet')):
    raise UserError(f'{folder}: holds Parquet files of something else; choose another folder')
  folder.mkdir(parents=True, exist_ok=True)
  with exclusive(folder / LOCK_FILE, f'the gallery {folder}'):
    store = GalleryStore(folder, _described(folder, networks, options))
    labeler = _labeler(store, options)
    rows = read_rows(store, within(listing.folders))
    labeler.warn_about_gaps(listing, [row.photo.full_path for part in rows for row in part])
    plan = plan_build(listing, rows, labeler, keep_missing=options.keep_missing, skip_bad=options.skip_bad)
    _list_bad(folder, listing, plan.problems)
    _rewrite(store, rows, plan, _pending(store.description, listing, plan.new))
    _embed(store, plan.new, embed)
    logger.info(f'gallery of {store.description.num_photos} images: {printable(str(folder))}')


def _described(folder: pathlib.Path, networks: Description, options: BuildOptions) -> Description:
  """Returns the description of the gallery with the options; raises UserError if it is by other networks."""
  if not is_gallery(folder):
    earlier = dataclasses.replace(networks, id=uuid.uuid4().hex)
  else:
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


def _labeler(store: GalleryStore, options: BuildOptions) -> Labeler:
  """Returns what finds labels; raises UserError as `Labeler`."""
  description = store.description
  try:
    return Labeler(description.identity_pattern, description.camera_pattern, description.tracks)
  except TracksError as error:
    if options.tracks is not None:
      raise
    raise UserError(
      f'{error}\n{store.folder / DESCRIPTION} has this table from an earlier build: --tracks=FILE.csv names another, '
      '--tracks= builds without tracks'
    ) from error


def _list_bad(folder: pathlib.Path, listing: Listing, problems: Mapping[str, str]) -> None:
  """Lists the photos that are left out; those of folders that are not named remain listed."""
  is_named, present = within(listing.folders), {photo.full_path for photo in listing.photos}
  earlier = {path: why for path, why in read_bad_files(folder).items() if not is_named(path) and path not in present}
  write_bad_files(folder, earlier | dict(problems))
  if problems:
    logger.warning(f'{len(problems)} images cannot be read and are left out: {printable(str(folder / BAD_FILES))}')


def _pending(description: Description, listing: Listing, new: Sequence[Row]) -> dict[str, int]:
  """Returns the numbers of photos to embed by their roots; those of roots that are not named wait for their build."""
  is_named = within(listing.folders)
  waiting = {root: count for root, count in description.pending.items() if not is_named(root)}
  return dict(Counter(waiting) | Counter(row.photo.root for row in new))  # single files are some of their folder's


def _rewrite(store: GalleryStore, rows: Sequence[Sequence[Row]], plan: Plan, pending: Mapping[str, int]) -> None:
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
  moved = [(row, Source(i, j)) for i in sorted(wanted.keys() - same) for j in sorted(wanted[i]) for row in wanted[i][j]]
  written = []
  for start in range(0, len(moved), ROWS):
    chunk = moved[start : start + ROWS]
    written.append(store.add([row for row, _ in chunk], _gathered(store, [source for _, source in chunk])))
  store.replace(dataclasses.replace(store.description, parts=(*kept, *written), pending=pending))
  store.remove_others()


def _gathered(store: GalleryStore, sources: Sequence[Source]) -> npt.NDArray[np.float32]:
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
  store.replace(store.description.embedded(parts, rows))
