"""Approximate search with FAISS: an inverted file of a stored gallery, saved beside it and rebuilt when it is stale.

The entries are grouped around centroids, and a query is compared with the groups whose centroids are nearest. Scores
are exact; entries of other groups are missed. The vectors are those before weighting, so one index serves every alpha.
"""

import contextlib
import hashlib
import importlib.util
import logging
import math
import pathlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from dgnet_jax.errors import UserError
from dgnet_jax.gallery.gallery import Gallery
from dgnet_jax.gallery.search import Found
from dgnet_jax.gallery.store import DESCRIPTION
from dgnet_jax.utils.atomic_files import atomic_file, write_json
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, check_regular, read_json
from dgnet_jax.utils.extras import install_command
from dgnet_jax.utils.locks import LOCK_FILE, exclusive

logger = logging.getLogger(__name__)

INDEX, ABOUT = 'search.faiss', 'search.json'
FORMAT = 1
GROUPS_PER_ROOT = 2  # groups in a gallery of N entries, as a multiple of the root of N
PROBED = 1 / 8  # of the groups, for each query
MIN_PROBED = 16
MIN_TRAINING, MAX_TRAINING = 1, 64  # entries for each group that centroids are computed from


def faiss_search(gallery: Gallery, queries: npt.NDArray[np.float32], count: int) -> list[Found]:
  """Like `search.most_similar`, with the index of a stored gallery, which is built if there is none that fits.

  Args:
    gallery: from `open_gallery`.
    queries: f32[Q, D], weighted.
    count: entries per query; the groups that are probed may have fewer.

  Raises:
    UserError: as `check_faiss`, or the gallery's folder cannot be written to.
  """
  index = _opened(gallery, check_faiss(gallery.folder))
  index.nprobe = max(MIN_PROBED, math.ceil(PROBED * index.nlist))
  scores, found = index.search(np.ascontiguousarray(queries, np.float32), min(count, len(gallery.paths)))
  results = []
  for i, s in zip(found, scores, strict=True):
    order = np.lexsort((i, -s))
    order = order[i[order] >= 0]
    results.append((i[order].astype(np.int64), s[order]))
  return results


def check_faiss(folder: pathlib.Path | None) -> pathlib.Path:
  """Returns the folder of a stored gallery; raises UserError if there is none, or faiss is not installed."""
  if folder is None:
    raise UserError('search=faiss needs a gallery on disk, from `dgnet index build`')
  if importlib.util.find_spec('faiss') is None:
    raise UserError(f'search=faiss needs faiss: {install_command("faiss")}, or use search=exact')
  return folder


def _opened(gallery: Gallery, folder: pathlib.Path) -> Any:
  """Returns the index, from the file if it is of this gallery."""
  key = {'format': FORMAT, 'gallery': _state(folder), 'num_entries': len(gallery.paths)}
  with exclusive(folder / LOCK_FILE, f'the gallery {folder}', wait=True):
    about: Any = None
    with contextlib.suppress(OSError, ValueError):
      about = read_json(folder / ABOUT, MAX_DESCRIPTION_BYTES)
    index = _read(folder / INDEX, len(gallery.paths), about.get('bytes')) if _fits(about, key) else None
    if index is None:
      _build(gallery, folder, key)
      index = _read(folder / INDEX, len(gallery.paths), check_regular(folder / INDEX))
    if index is None:
      raise UserError(f'{folder / INDEX}: cannot be read just after it was written; use --search=exact')
    return index


def _state(folder: pathlib.Path) -> str:
  """Returns what changes when the gallery does."""
  try:
    return hashlib.sha256((folder / DESCRIPTION).read_bytes()).hexdigest()
  except OSError as error:
    raise UserError(f'{folder / DESCRIPTION}: cannot be read ({error.strerror})') from error


def _fits(about: Any, key: dict[str, Any]) -> bool:
  return isinstance(about, dict) and {name: about.get(name) for name in key} == key


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
