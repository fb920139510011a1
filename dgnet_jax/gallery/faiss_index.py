"""Approximate search with FAISS: an inverted file of a stored gallery, saved beside it and rebuilt when it is stale.

The entries are grouped around centroids, and a query is compared with the groups whose centroids are nearest. Scores
are exact; entries of other groups are missed. The vectors are those before weighting, so one index serves every alpha.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import math
import os
import pathlib
import time
from typing import Any
import weakref

import numpy as np
import numpy.typing as npt

from dgnet_jax.errors import UserError
from dgnet_jax.gallery.gallery import Gallery
from dgnet_jax.gallery.search import Found
from dgnet_jax.gallery.store import Description, read_description
from dgnet_jax.utils.atomic_files import atomic_file, write_json
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, check_regular, read_json
from dgnet_jax.utils.extras import install_command
from dgnet_jax.utils.locks import LOCK_FILE, exclusive
from dgnet_jax.utils.text import printable

logger = logging.getLogger(__name__)

INDEX, ABOUT = 'search.faiss', 'search.json'
FORMAT = 2
GROUPS_PER_ROOT = 2  # groups in a gallery of N entries, as a multiple of the root of N
PROBED = 1 / 8  # of the groups, for each query
MIN_PROBED = 16
MIN_TRAINING, MAX_TRAINING = 1, 64  # entries for each group that centroids are computed from

# The files of the index of each gallery when it was opened, and the index.
_open_indexes: weakref.WeakKeyDictionary[Gallery, tuple[tuple[int, ...], Any]] = weakref.WeakKeyDictionary()


def faiss_search(gallery: Gallery, queries: npt.NDArray[np.float32], count: int) -> list[Found]:
  """Like `search.most_similar`, with the index of a stored gallery, which is built if there is none that fits.

  Args:
    gallery: from `open_gallery`.
    queries: f32[Q, D], weighted.
    count: entries per query. More groups are probed for queries whose groups have fewer.

  Raises:
    UserError: as `check_faiss`; or there is no index of this gallery, and its folder cannot be written to, or has
      another gallery by now.
  """
  index = _opened(gallery, *check_faiss(gallery))
  count = min(count, len(gallery.paths))
  queries = np.ascontiguousarray(queries, np.float32)
  probed = max(MIN_PROBED, math.ceil(PROBED * index.nlist))
  scores, found = _search(index, queries, count, probed)
  while (few := np.flatnonzero((found < 0).any(axis=1))).size and probed < index.nlist:
    probed *= 2
    scores[few], found[few] = _search(index, queries[few], count, probed)
  results = []
  for i, s in zip(found, scores, strict=True):
    order = np.lexsort((i, -s))
    results.append((i[order].astype(np.int64), s[order]))
  return results


def _search(index: Any, queries: npt.NDArray[np.float32], count: int, probed: int) -> tuple[Any, Any]:
  """Returns scores and entries, -1 where there are not enough in the groups that are probed."""
  import faiss

  parameters = faiss.SearchParametersIVF()  # not index.nprobe: other threads may be searching the same index
  parameters.nprobe = probed
  scores, found = index.search(queries, count, params=parameters)
  return scores, found


def check_faiss(gallery: Gallery | None) -> tuple[pathlib.Path, Description]:
  """Returns the folder and the description of a stored gallery.

  Raises:
    UserError: it is not stored, its folder has a name that faiss cannot read, or faiss is not installed.
  """
  if gallery is None or gallery.folder is None or gallery.description is None:
    raise UserError('search=faiss needs a gallery on disk, from `dgnet index build`')
  if importlib.util.find_spec('faiss') is None:
    raise UserError(f'search=faiss needs faiss: {install_command("faiss")}, or use search=exact')
  try:
    str(gallery.folder).encode()
  except UnicodeEncodeError:
    name = printable(str(gallery.folder))
    raise UserError(f'{name}: the name is not UTF-8, which faiss needs; rename it, or use search=exact') from None
  return gallery.folder, gallery.description


def _opened(gallery: Gallery, folder: pathlib.Path, description: Description) -> Any:
  """Returns the index of a gallery, which stays open as long as the gallery and the files are the same.

  What one search has read from the file is mapped in memory for the next.
  """
  files = _files(folder)
  if files is not None and (kept := _open_indexes.get(gallery)) is not None and kept[0] == files:
    return kept[1]
  index = _saved_or_built(gallery, folder, description)
  if files is not None and files == _files(folder):
    _open_indexes[gallery] = files, index
  return index


def _files(folder: pathlib.Path) -> tuple[int, ...] | None:
  """Returns what changes when the files of an index do; None if one is missing."""
  try:
    found = [os.stat(folder / name) for name in (INDEX, ABOUT)]
  except OSError:
    return None
  return tuple(number for file in found for number in (file.st_ino, file.st_size, file.st_mtime_ns))


def _saved_or_built(gallery: Gallery, folder: pathlib.Path, description: Description) -> Any:
  """Returns the index, from the file if it is of this gallery."""
  key = {'format': FORMAT, 'gallery': _state(description), 'num_entries': len(gallery.paths)}
  if (index := _saved(folder, key)) is not None:  # without a lock, which needs a folder that can be written to
    return index
  try:
    with exclusive(folder / LOCK_FILE, f'the gallery {folder}', wait=True):
      index = _saved(folder, key)
      if index is None:
        if _state(read_description(folder)) != key['gallery']:
          raise UserError(f'{folder}: the gallery has changed since it was opened; open it again, or use search=exact')
        _build(gallery, folder, key)
        index = _saved(folder, key)
  except OSError as error:
    raise UserError(
      f'{folder}: cannot be written to ({error.strerror}), so that no index can be built; use search=exact'
    ) from error
  if index is None:
    raise UserError(f'{folder / INDEX}: cannot be read just after it was written; use search=exact')
  return index


def _state(description: Description) -> str:
  """Returns what changes when the entries do: the names of files, which a gallery never uses for other rows."""
  parts = [(part.file, part.rows) for part in description.parts]
  return hashlib.sha256(json.dumps([description.id, parts]).encode()).hexdigest()


def _saved(folder: pathlib.Path, key: dict[str, Any]) -> Any:
  """Returns the saved index if it is what `key` says; None otherwise."""
  about = _about(folder)
  if not _fits(about, key):
    return None
  index = _read(folder / INDEX, key['num_entries'], about['bytes'])
  return index if _about(folder) == about else None  # or another process writes one right now


def _about(folder: pathlib.Path) -> Any:
  with contextlib.suppress(OSError, ValueError):
    return read_json(folder / ABOUT, MAX_DESCRIPTION_BYTES)
  return None


def _fits(about: Any, key: dict[str, Any]) -> bool:
  return isinstance(about, dict) and 'bytes' in about and {name: about.get(name) for name in key} == key


def _read(path: pathlib.Path, num_entries: int, size: object) -> Any:
  """Opens the file without reading all of it; None if it is not what it should be."""
  import faiss

  try:
    if check_regular(path) != size:
      return None
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
  except (OSError, RuntimeError):
    return None
  return index if index.ntotal == num_entries else None


def _build(gallery: Gallery, folder: pathlib.Path, key: dict[str, Any]) -> None:
  """Writes the index, then what it is of."""
  import faiss

  start, features = time.monotonic(), np.ascontiguousarray(gallery.features, np.float32)
  num_groups = max(1, min(round(GROUPS_PER_ROOT * math.sqrt(len(features))), len(features)))
  logger.info(f'{folder / INDEX}: building an index of {len(features)} entries in {num_groups} groups')
  size = features.shape[1]
  index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, num_groups, faiss.METRIC_INNER_PRODUCT)
  index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = MIN_TRAINING, MAX_TRAINING
  index.train(features)
  index.add(features)
  (folder / ABOUT).unlink(missing_ok=True)
  with atomic_file(folder / INDEX) as temporary:
    faiss.write_index(index, str(temporary))
  write_json(folder / ABOUT, key | {'bytes': check_regular(folder / INDEX)})
  logger.info(f'{folder / INDEX}: built in {time.monotonic() - start:.0f} s')
