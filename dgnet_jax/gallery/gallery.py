"""Galleries: embedded images that can be searched any number of times, in memory or from a folder."""

from collections.abc import Callable, Sequence
import concurrent.futures
import dataclasses
import functools
import logging
import os
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt

from dgnet_jax.errors import UserError
from dgnet_jax.gallery.store import Description, GalleryStore, Part, is_gallery, read_description
from dgnet_jax.gallery.tracks import pool_tracks, track_members
from dgnet_jax.utils.paths import local_path
from dgnet_jax.utils.text import printable

logger = logging.getLogger(__name__)

Features = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Match:
  """An entry of a gallery as a match of a query.

  Attributes:
    path: path of the image, of a track that of its first; '' if it was a PIL image or an array.
    score: similarity in [-1, 1]; 1 for the same image.
    index: index of the entry in the gallery.
    same_person: True if the score reaches the run's calibrated threshold; None without one, and if the entry or the
      query is a track.
    identity: name of the person, if the gallery knows it; otherwise ''.
    camera: likewise.
    num_images: of the track; 1 for a single image.
  """

  path: str
  score: float
  index: int
  same_person: bool | None = None
  identity: str = ''
  camera: str = ''
  num_images: int = 1


class Gallery:
  """Embedded images or tracks, from `Model.gallery` or `open_gallery`.

  Attributes:
    paths: one per entry, of a track that of its first image; '' if it was a PIL image or an array.
    identities, cameras: names, '' where they are not known.
    num_images: number of images of each entry; more than 1 in tracks.
    folder: where it is stored; None in memory.
    description: of a stored gallery.
  """

  def __init__(
    self,
    paths: Sequence[str],
    features: Features | Callable[[], Features],
    *,
    identities: Sequence[str] = (),
    cameras: Sequence[str] = (),
    num_images: Sequence[int] = (),
    stored: tuple[pathlib.Path, Description] | None = None,
  ) -> None:
    """Makes a gallery of N entries.

    Args:
      paths: as the attribute.
      features: as the attribute, or a function that reads them when they are first needed.
      identities: as the attribute; all are unknown by default.
      cameras: likewise.
      num_images: as the attribute; 1 each by default.
      stored: folder and description of a stored gallery.
    """
    self.paths = tuple(paths)
    self._features = features
    self.identities = tuple(identities) or ('',) * len(self.paths)
    self.cameras = tuple(cameras) or ('',) * len(self.paths)
    self.num_images = tuple(num_images) or (1,) * len(self.paths)
    self.folder = stored[0] if stored else None
    self.description = stored[1] if stored else None

  def __len__(self) -> int:
    return len(self.paths)

  @functools.cached_property
  def features(self) -> Features:
    """f32[N, D], before `rank` weights the halves: each has length 1. `Model.embed` returns embeddings."""
    return self._features() if callable(self._features) else self._features

  def match(self, index: int, score: float, threshold: float | None) -> Match:
    """Returns an entry as a match; `threshold` is the lowest score of one person's images, if that is known.

    It is calibrated on single images, so it says nothing about tracks. The score is cut to [-1, 1], which rounding may
    leave.
    """
    score = min(max(score, -1.0), 1.0)
    same = None if threshold is None or self.num_images[index] > 1 else score >= threshold
    labels = self.identities[index], self.cameras[index]
    return Match(self.paths[index], score, index, same, *labels, self.num_images[index])


def open_gallery(path: str | os.PathLike[str]) -> Gallery:
  """Opens a gallery that `dgnet index build` has made; embeddings are read when they are first needed.

  Entries are sorted by path, whatever the order in which they were embedded. If the gallery was built with tracks, its
  entries are the tracks, and photos in none.

  Raises:
    UserError: there is none at `path`, it is damaged, or pyarrow is not installed.
  """
  folder = local_path(path)
  if not is_gallery(folder):
    raise UserError(f'{folder}: no gallery; `dgnet index build RUN PHOTOS --out={folder}` makes one')
  store = GalleryStore(folder, read_description(folder))
  description = store.description
  if description.num_pending:
    logger.warning(
      f'{printable(str(folder))}: {description.num_pending} images are not embedded yet; '
      '`dgnet index build` goes on with them'
    )
  if not description.parts:
    raise UserError(f'{folder}: the gallery is empty; `dgnet index build` adds images')
  table, order = _sorted(store.table())
  members = track_members(table['track'].to_pylist())
  has_tracks = len(members) < len(order)

  def read() -> Features:
    features = _read_features(store, order)
    return pool_tracks(features, members, description.num_pieces) if has_tracks else features

  if has_tracks:
    table = table.take([indices[0] for indices in members])
  return Gallery(
    table['full_path'].to_pylist(),
    read,
    identities=table['identity'].fill_null('').to_pylist(),
    cameras=table['camera'].fill_null('').to_pylist(),
    num_images=[len(indices) for indices in members],
    stored=(folder, description),
  )


def _sorted(table: Any) -> tuple[Any, npt.NDArray[np.int64]]:
  """Returns a table of photos with the column `full_path`, sorted by it, and the order."""
  import pyarrow.compute

  full_path = pyarrow.compute.binary_join_element_wise(
    pyarrow.compute.utf8_rtrim(table['root'], os.sep), table['path'], os.sep
  )
  table = table.append_column('full_path', full_path)
  order = pyarrow.compute.sort_indices(table, [('full_path', 'ascending')])
  return table.take(order), order.to_numpy().astype(np.int64)


def _read_features(store: GalleryStore, order: npt.NDArray[np.int64]) -> Features:
  """Reads the embeddings f32[N, D] of photos that the parts have in another order."""
  parts = store.description.parts
  features = np.empty((len(order), store.description.size), np.float32)
  place = np.empty(len(order), np.int64)
  place[order] = np.arange(len(order))
  ends = np.cumsum([part.rows for part in parts])

  def read(part: Part, end: int) -> None:
    features[place[end - part.rows : end]] = store.embeddings(part)

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    list(pool.map(read, parts, ends.tolist()))
  return features
