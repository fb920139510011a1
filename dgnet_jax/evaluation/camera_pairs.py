"""Rankings by pairs of cameras: which camera's gallery images do the queries of a camera fail to find?"""

from collections.abc import Iterator
import dataclasses

import numpy as np
import numpy.typing as npt

from dgnet_jax.evaluation.embeddings import Embeddings, Integers
from dgnet_jax.evaluation.match_ranks import SCORE_BLOCK_BYTES
from dgnet_jax.evaluation.ranking import rank_scores


@dataclasses.dataclass(frozen=True, eq=False)
class CameraPairs:
  """Scores of the queries of P cameras, each ranking the gallery images of one of R cameras alone.

  query_cameras: i[P], ascending. gallery_cameras: i[R], ascending. num_queries: i64[P, R], the queries with a match
  among these images; 0 where both cameras are the same, because such images are junk. rank_1, mean_average_precision:
  f64[P, R] over these queries, NaN where there are none.
  """

  query_cameras: Integers
  gallery_cameras: Integers
  num_queries: npt.NDArray[np.int64]
  rank_1: npt.NDArray[np.float64]
  mean_average_precision: npt.NDArray[np.float64]


def rank_camera_pairs(query: Embeddings, gallery: Embeddings, *, protocol: str) -> CameraPairs:
  """Ranks the gallery images of every camera for the queries of every other camera.

  Args:
    query: Q images, with features f[Q, D] already weighted by alpha.
    gallery: G images, with features f[G, D].
    protocol: as for `ranking.rank`; queries without a match are left out by either.
  """
  query_cameras, gallery_cameras = np.unique(query.camera), np.unique(gallery.camera)
  shape = len(query_cameras), len(gallery_cameras)
  num_queries = np.zeros(shape, np.int64)
  rank_1, precision = np.full(shape, np.nan), np.full(shape, np.nan)
  for j, gallery_camera in enumerate(gallery_cameras):
    images = gallery.select(np.flatnonzero(gallery.camera == gallery_camera))
    identities = images.identity[images.identity > 0]
    for i, camera in enumerate(query_cameras):
      asked = np.flatnonzero((query.camera == camera) & np.isin(query.identity, identities))
      if camera == gallery_camera or not len(asked):
        continue
      queries = query.select(asked)
      result = rank_scores(_score_blocks(queries, images), queries, images, protocol=protocol)
      num_queries[i, j] = len(asked)
      rank_1[i, j], precision[i, j] = result.at(1), result.mean_average_precision
  return CameraPairs(query_cameras, gallery_cameras, num_queries, rank_1, precision)


def _score_blocks(query: Embeddings, gallery: Embeddings) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields indices of queries i64[B] with their scores of the gallery f[B, G]."""
  rows = max(1, SCORE_BLOCK_BYTES // (4 * len(gallery)))
  for start in range(0, len(query), rows):
    block = np.arange(start, min(start + rows, len(query)))
    yield block, query.features[block] @ gallery.features.T
