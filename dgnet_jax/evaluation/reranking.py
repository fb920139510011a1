"""k-reciprocal re-ranking (Zhong et al., arXiv 1701.08398), in memory bounded by a block of rows.

Two images are near when each is among the other's nearest and their neighbourhoods overlap. Every image becomes a
sparse vector of weights over its k-reciprocal neighbours; the Jaccard distance of two such vectors, mixed with the
distance of the embeddings, orders the gallery.
"""

from collections.abc import Iterator
import logging
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from dgnet_jax.evaluation.match_ranks import PROGRESS_SECONDS, SCORE_BLOCK_BYTES
from dgnet_jax.types import Array
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)


EXPANSION = 2 / 3  # share of a neighbour's neighbourhood that must lie in one's own for it to be taken over


@jax.jit
def _similarity(rows: Array, everything: Array) -> Array:
  return jnp.matmul(rows, everything.T, precision=jax.lax.Precision.HIGHEST)


class Reranked:
  """Scores of a gallery for every query by k-reciprocal re-ranking.

  Args:
    query_embedding: f32[Q, D], of one length each; its dot product with a gallery embedding is the similarity.
    gallery_embedding: f32[G, D], likewise.
    k1: neighbours that may be reciprocal.
    k2: neighbours whose weights are averaged.
    weight: of the embeddings' own distance in the result, 0 to 1.
  """

  def __init__(
    self, query_embedding: np.ndarray, gallery_embedding: np.ndarray, *, k1: int = 20, k2: int = 6, weight: float = 0.3
  ) -> None:
    everything = np.concatenate([query_embedding, gallery_embedding]).astype(np.float32)
    if not 0 < k2 <= k1 < len(everything) or not 0 <= weight <= 1:
      raise ValueError(f'{k1=}, {k2=}, {weight=}: needs 0 < k2 <= k1 < {len(everything)} images, 0 <= weight <= 1')
    self._num_queries, self._weight = len(query_embedding), weight
    self._everything = jax.device_put(everything)
    self._squares = np.square(everything).sum(axis=1)
    nearest, self._farthest = self._neighbours(k1 + 1)
    weights = self._weights(nearest, k1)
    if k2 > 1:
      ones = np.full(len(everything) * k2, 1 / k2, np.float32)
      rows = np.repeat(np.arange(len(everything)), k2)
      weights = scipy.sparse.csr_array((ones, (rows, nearest[:, :k2].ravel())), shape=[len(everything)] * 2) @ weights
    self._query_weights = weights[: self._num_queries]
    self._gallery_by_neighbour = weights[self._num_queries :].tocsc()

  def _distances(self, rows: np.ndarray) -> np.ndarray:
    """Squared distances f32[R, Q + G] of some images to all, not yet divided by the farthest."""
    similarity = np.asarray(_similarity(self._everything[rows], self._everything))
    return np.maximum(self._squares[rows, None] + self._squares - 2 * similarity, 0)

  def _runs(self, total: int) -> Iterator[np.ndarray]:
    size = max(1, SCORE_BLOCK_BYTES // (4 * len(self._squares)))
    for start in range(0, total, size):
      yield np.arange(start, min(start + size, total))

  def _neighbours(self, count: int) -> tuple[np.ndarray, np.ndarray]:
    """i64[N, count], everybody's nearest with themselves, the nearest first; f32[N], the largest distance."""
    total = len(self._squares)
    nearest, farthest = np.empty((total, count), np.int64), np.empty(total, np.float32)
    progress, last = Progress(total, unit='images'), time.monotonic()
    for rows in self._runs(total):
      distances = self._distances(rows)
      farthest[rows] = distances.max(axis=1)
      near = np.argpartition(distances, count - 1, axis=1)[:, :count]
      order = np.argsort(np.take_along_axis(distances, near, axis=1), axis=1, kind='stable')
      nearest[rows] = np.take_along_axis(near, order, axis=1)
      if time.monotonic() - last > PROGRESS_SECONDS:
        logger.info(f're-ranking, neighbours: {progress.line(int(rows[-1]) + 1)}')
        last = time.monotonic()
    return nearest, np.maximum(farthest, np.finfo(np.float32).tiny)

  def _weights(self, nearest: np.ndarray, k1: int) -> scipy.sparse.csr_array:
    """Sparse f32[N, N]: each image's weights over its expanded k-reciprocal neighbours, summing to 1."""
    total, half = len(nearest), round(k1 / 2)
    full = [set(_reciprocal(nearest, i, k1)) for i in range(total)]
    halves = [set(_reciprocal(nearest, i, half)) for i in range(total)]
    members, values, starts = [], [], [0]
    embedding = np.asarray(self._everything)
    for i in range(total):
      taken = (halves[j] for j in full[i] if len(halves[j] & full[i]) > EXPANSION * len(halves[j]))
      group = np.fromiter(sorted(full[i].union(*taken)), np.int64)
      distance = self._squares[i] + self._squares[group] - 2 * embedding[group] @ embedding[i]
      weight = np.exp(-np.maximum(distance, 0) / self._farthest[i])
      members.append(group)
      values.append((weight / weight.sum()).astype(np.float32))
      starts.append(starts[-1] + len(group))
    return scipy.sparse.csr_array((np.concatenate(values), np.concatenate(members), starts), shape=(total, total))

  def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Runs of queries i64[B] with their scores of the whole gallery f32[B, G]; higher is better."""
    for rows in self._runs(self._num_queries):
      own = self._distances(rows)[:, self._num_queries :] / self._farthest[rows, None]
      shared = np.stack([self._overlap(int(i)) for i in rows])
      jaccard = 1 - shared / (2 - shared)
      yield rows, -((1 - self._weight) * jaccard + self._weight * own)

  def _overlap(self, query: int) -> np.ndarray:
    """f32[G]: sum over neighbours of the smaller of the query's and a gallery image's weight."""
    mine, gallery = self._query_weights[[query]], self._gallery_by_neighbour
    overlap = np.zeros(gallery.shape[0], np.float32)
    for neighbour, weight in zip(mine.indices, mine.data, strict=True):
      column = slice(gallery.indptr[neighbour], gallery.indptr[neighbour + 1])
      overlap[gallery.indices[column]] += np.minimum(weight, gallery.data[column])
    return overlap


def _reciprocal(nearest: np.ndarray, i: int, k: int) -> list[int]:
  """The k nearest of image i that have it among their k nearest; itself is one."""
  mine = nearest[i, : k + 1]
  return mine[(nearest[mine, : k + 1] == i).any(axis=1)].tolist()
