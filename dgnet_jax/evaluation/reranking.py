"""k-reciprocal re-ranking (Zhong et al., arXiv 1701.08398), in memory bounded by a block of rows.

Two images are k-reciprocal neighbours if each is among the k nearest of the other. Every image becomes a sparse vector
of weights over its k-reciprocal neighbours; the Jaccard distance of two such vectors, mixed with the distance of the
features, orders the gallery.
"""

from collections.abc import Iterator
import logging

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import scipy.sparse

from dgnet_jax.evaluation.embeddings import Floats
from dgnet_jax.evaluation.match_ranks import SCORE_BLOCK_BYTES
from dgnet_jax.types import Array
from dgnet_jax.utils.progress import ProgressLog

logger = logging.getLogger(__name__)

EXPANSION = 2 / 3  # a neighbour's neighbourhood is added if more than this fraction of it is in the image's own


@jax.jit
def _similarity(rows: Array, features: Array) -> Array:
  return jnp.matmul(rows, features.T, precision=jax.lax.Precision.HIGHEST)


class Reranker:
  """Scores a gallery for every query by k-reciprocal re-ranking.

  Args:
    query_features: f32[Q, D], all of one norm; the dot product with a gallery image's features is the similarity.
    gallery_features: f32[G, D], all of one norm.
    k1: number of neighbours that may be reciprocal.
    k2: number of neighbours whose weights are averaged.
    weight: weight of the features' own distance in the result, in [0, 1].

  Raises:
    ValueError: k1, k2 or weight is out of range, or there are not more than k1 images.
  """

  def __init__(
    self, query_features: Floats, gallery_features: Floats, *, k1: int = 20, k2: int = 6, weight: float = 0.3
  ) -> None:
    features = np.concatenate([query_features, gallery_features]).astype(np.float32)
    if not 0 < k2 <= k1 < len(features) or not 0 <= weight <= 1:
      raise ValueError(f'{k1=}, {k2=}, {weight=}: needs 0 < k2 <= k1 < {len(features)} images, 0 <= weight <= 1')
    self._num_queries, self._weight = len(query_features), weight
    self._features = jax.device_put(features)
    self._squares = np.square(features).sum(axis=1)
    nearest, self._farthest = self._nearest(k1 + 1)
    weights = self._neighbour_weights(nearest, k1)
    if k2 > 1:
      shares = np.full(len(features) * k2, 1 / k2, np.float32)
      rows = np.repeat(np.arange(len(features)), k2)
      weights = scipy.sparse.csr_array((shares, (rows, nearest[:, :k2].ravel())), shape=[len(features)] * 2) @ weights
    self._query_weights = weights[: self._num_queries]
    self._gallery_by_neighbour = weights[self._num_queries :].tocsc()

  def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields indices of queries i64[B] with their scores of the gallery f32[B, G]; higher is better."""
    for rows in self._row_blocks(self._num_queries):
      distance = self._distances(rows)[:, self._num_queries :] / self._farthest[rows, None]
      overlap = np.stack([self._overlap(int(i)) for i in rows])
      jaccard = 1 - overlap / (2 - overlap)
      yield rows, -((1 - self._weight) * jaccard + self._weight * distance)

  def _row_blocks(self, total: int) -> Iterator[np.ndarray]:
    size = max(1, SCORE_BLOCK_BYTES // (4 * len(self._squares)))
    for start in range(0, total, size):
      yield np.arange(start, min(start + size, total))

  def _distances(self, rows: np.ndarray) -> npt.NDArray[np.float32]:
    """Computes the squared distances f32[R, Q + G] of the images at `rows` to all images."""
    similarity = np.asarray(_similarity(self._features[rows], self._features))
    distances: npt.NDArray[np.float32] = np.maximum(self._squares[rows, None] + self._squares - 2 * similarity, 0)
    return distances

  def _nearest(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The nearest of each of N images, itself included, nearest first: i64[N, count]; its largest distance: f32[N]."""
    total = len(self._squares)
    nearest, farthest = np.empty((total, count), np.int64), np.empty(total, np.float32)
    progress = ProgressLog(logger, 're-ranking, nearest neighbours', total, 'images')
    for rows in self._row_blocks(total):
      distances = self._distances(rows)
      farthest[rows] = distances.max(axis=1)
      near = np.argpartition(distances, count - 1, axis=1)[:, :count]
      order = np.argsort(np.take_along_axis(distances, near, axis=1), axis=1, kind='stable')
      nearest[rows] = np.take_along_axis(near, order, axis=1)
      progress.update(int(rows[-1]) + 1)
    return nearest, np.maximum(farthest, np.finfo(np.float32).tiny)

  def _neighbour_weights(self, nearest: np.ndarray, k1: int) -> scipy.sparse.csr_array:
    """Returns the sparse f32[N, N]: each image's weights over its expanded k-reciprocal neighbours, summing to 1."""
    total, half = len(nearest), round(k1 / 2)
    neighbours = [set(_reciprocal(nearest, i, k1)) for i in range(total)]
    close_neighbours = [set(_reciprocal(nearest, i, half)) for i in range(total)]
    columns, values, starts = [], [], [0]
    features = np.asarray(self._features)
    for i in range(total):
      candidates = (close_neighbours[j] for j in neighbours[i])
      added = (group for group in candidates if len(group & neighbours[i]) > EXPANSION * len(group))
      expanded = np.fromiter(sorted(neighbours[i].union(*added)), np.int64)
      distance = self._squares[i] + self._squares[expanded] - 2 * features[expanded] @ features[i]
      weight = np.exp(-np.maximum(distance, 0) / self._farthest[i])
      columns.append(expanded)
      values.append((weight / weight.sum()).astype(np.float32))
      starts.append(starts[-1] + len(expanded))
    return scipy.sparse.csr_array((np.concatenate(values), np.concatenate(columns), starts), shape=(total, total))

  def _overlap(self, query: int) -> npt.NDArray[np.float32]:
    """Returns f32[G]: sum over neighbours of the smaller of the query's and a gallery image's weight."""
    weights, gallery = self._query_weights[[query]], self._gallery_by_neighbour
    overlap = np.zeros(gallery.shape[0], np.float32)
    for neighbour, weight in zip(weights.indices, weights.data, strict=True):
      column = slice(gallery.indptr[neighbour], gallery.indptr[neighbour + 1])
      overlap[gallery.indices[column]] += np.minimum(weight, gallery.data[column])
    return overlap


def _reciprocal(nearest: np.ndarray, i: int, k: int) -> list[int]:
  """Returns the k-reciprocal neighbours of image i, itself included."""
  near = nearest[i, : k + 1]
  neighbours: list[int] = near[(nearest[near, : k + 1] == i).any(axis=1)].tolist()
  return neighbours
