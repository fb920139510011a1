"""The ranks of every query's matches in a gallery of any size.

The rank of a match is the number of gallery images with a higher score, so nothing is sorted: scores are computed in
blocks on the devices, compared with those of the matches, and dropped. Memory is bounded by a block.
"""

from collections.abc import Iterable
import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from dgnet_jax.evaluation.blocks import block_scores, gallery_part, padded, round_up, slices
from dgnet_jax.evaluation.embeddings import Floats, Labels
from dgnet_jax.sharding import batch_sharding, make_mesh, replicated
from dgnet_jax.types import Array
from dgnet_jax.utils.progress import ProgressLog

logger = logging.getLogger(__name__)

SCORE_BLOCK_BYTES = 64 * 2**20  # scores in memory at a time, over all devices
STRIP_BYTES = 5 * 2**19  # scores compared at a time on one device
EXACT_COUNTS = 2**24  # up to which float32 holds every integer
MILLION = 10**6
ROWS = 8  # each query's own images are padded to a multiple of it, so that few shapes compile


@dataclasses.dataclass(frozen=True)
class Relevance:
  """The gallery images that are matches, negatives and junk of each of Q queries.

  queried: i64[N], gallery indices of the identities that queries have, sorted by identity. others: i64[F], gallery
  indices of all others except junk (identity -1): negatives of every query. own: i64[Q, S], indices into `queried` of
  each query's identity, matches first, padded with 0. is_match, is_junk: bool[Q, S]; an image in `own` is junk if it
  has the query's camera, and padding is neither.
  """

  queried: npt.NDArray[np.int64]
  others: npt.NDArray[np.int64]
  own: npt.NDArray[np.int64]
  is_match: npt.NDArray[np.bool_]
  is_junk: npt.NDArray[np.bool_]


def judge_relevance(query: Labels, gallery: Labels) -> Relevance:
  """Sorts the gallery into matches, negatives and junk of each query."""
  is_queried = np.isin(gallery.identity, query.identity) & (gallery.identity > 0)
  queried = np.flatnonzero(is_queried)
  queried = queried[np.argsort(gallery.identity[queried], kind='stable')]
  identities = gallery.identity[queried]
  start = np.searchsorted(identities, query.identity, 'left')
  end = np.searchsorted(identities, query.identity, 'right')
  width = round_up(max(1, (end - start).max(initial=0)), ROWS)
  own = start[:, None] + np.arange(width)
  is_own = own < end[:, None]
  own = np.where(is_own, own, 0)
  same_camera = np.zeros_like(is_own)
  if len(queried):
    same_camera = gallery.camera[queried][own] == query.camera[:, None]
  # Matches first: only those are compared with the gallery.
  order = np.argsort(same_camera + 2 * ~is_own, axis=1, kind='stable')
  return Relevance(
    queried=queried,
    others=np.flatnonzero(~is_queried & (gallery.identity >= 0)),
    own=np.take_along_axis(own, order, axis=1),
    is_match=np.take_along_axis(is_own & ~same_camera, order, axis=1),
    is_junk=np.take_along_axis(is_own & same_camera, order, axis=1),
  )


def match_ranks(
  query_features: Floats,
  gallery_features: Floats,
  relevance: Relevance,
  *,
  mesh: jax.sharding.Mesh | None = None,
) -> npt.NDArray[np.int64]:
  """Computes the ranks of every query's matches by dot product, with junk removed.

  Negatives with the score of a match rank before it, so a constant embedding scores nothing.

  Args:
    query_features: f32[Q, D].
    gallery_features: f32[G, D].
    relevance: from `judge_relevance`, for these queries and this gallery.
    mesh: the devices that share the queries; by default those of this process.

  Returns:
    i64[Q, S], 0 is best, ascending; -1 after the last match.
  """
  mesh = mesh or make_mesh(jax.local_devices())
  put, everywhere = functools.partial(jax.device_put, device=batch_sharding(mesh)), replicated(mesh)
  compare_queried, compare_others = _compiled(mesh)
  queries = np.asarray(query_features, np.float32)
  # A block has queries with similar numbers of matches, because it makes as many comparisons as its longest row needs.
  depth = relevance.is_match.sum(axis=1)
  order = np.argsort(-depth, kind='stable')
  num_queried, num_others = len(relevance.queried), len(relevance.others)
  rows = mesh.size * min(
    _rows_within(SCORE_BLOCK_BYTES // mesh.size, num_queried), 1 << (-(-len(queries) // mesh.size) - 1).bit_length()
  )
  columns = max(1, min(SCORE_BLOCK_BYTES // (4 * rows), num_others))

  own_scores = np.zeros(relevance.own.shape, np.float32)
  num_above = np.zeros(relevance.own.shape, np.int64)
  num_pairs, compared = len(queries) * (num_queried + num_others), 0
  progress = ProgressLog(logger, 'ranking', -(-num_pairs // MILLION), 'million pairs')
  if num_queried:
    gallery = jax.device_put(gallery_part(gallery_features, relevance.queried, 0), everywhere)
    for block in slices(len(queries), rows):
      i = order[block]
      own = put(padded(relevance.own[i].astype(np.int32), rows))
      scores, counts = compare_queried(put(padded(queries[i], rows)), gallery, own, int(depth[i[0]]))
      own_scores[i], num_above[i] = np.asarray(scores)[: len(i)], np.asarray(counts)[: len(i)]
      compared += len(i) * num_queried
      progress.update(compared // MILLION)
    del gallery
  for part in slices(num_others, columns):
    gallery = jax.device_put(gallery_part(gallery_features, relevance.others[part], columns), everywhere)
    for block in slices(len(queries), rows):
      i = order[block]
      own = put(padded(own_scores[i], rows))
      counts = compare_others(put(padded(queries[i], rows)), gallery, own, int(depth[i[0]]))
      num_above[i] += np.asarray(counts)[: len(i)]
      compared += len(i) * (part.stop - part.start)
      progress.update(compared // MILLION)
  return _ranks(own_scores, num_above, relevance)


def match_ranks_of_scores(
  blocks: Iterable[tuple[np.ndarray, np.ndarray]], relevance: Relevance
) -> npt.NDArray[np.int64]:
  """Like `match_ranks`, for scores that are not dot products.

  Args:
    blocks: indices of queries i64[B] with their scores of the gallery f32[B, G]; every query once.
    relevance: from `judge_relevance`, for these queries and this gallery.
  """
  own_scores = np.zeros(relevance.own.shape, np.float32)
  num_above = np.zeros(relevance.own.shape, np.int64)
  ranked = np.concatenate([relevance.queried, relevance.others])
  for queries, scores in blocks:
    kept = scores[:, ranked]
    own_scores[queries] = np.take_along_axis(kept, relevance.own[queries], axis=1)
    for i, row in zip(queries, kept, strict=True):
      matches = np.flatnonzero(relevance.is_match[i])
      num_above[i, matches] = [np.count_nonzero(row >= own_scores[i, column]) for column in matches]
  return _ranks(own_scores, num_above, relevance)


def _ranks(own_scores: np.ndarray, num_above: np.ndarray, relevance: Relevance) -> npt.NDArray[np.int64]:
  """Ranks from the scores of each query's own images f32[Q, S] and the number of images that reach them i64[Q, S].

  The own images among those are subtracted: junk does not count, and matches are ranked among themselves.
  """
  ranks = np.full(own_scores.shape, -1)
  for i, (scores, counts) in enumerate(zip(own_scores, num_above, strict=True)):
    own = np.sort(scores[relevance.is_match[i] | relevance.is_junk[i]])
    matches = scores[relevance.is_match[i]]
    num_negatives = counts[relevance.is_match[i]] - (len(own) - np.searchsorted(own, matches))
    ranks[i, : len(matches)] = np.sort(num_negatives) + np.arange(len(matches))
  return ranks


def _count_above(scores: Array, own: Array, depth: Array) -> Array:
  """For each of the first `depth` columns of own [B, S], the number of scores [B, N] at least as high: i32[B, S].

  Works in strips: every column reads the scores again, which is five times faster while they are in the cache.
  """
  # XLA's CPU code adds float32 a third faster than int32.
  dtype = jnp.float32 if scores.shape[1] <= EXACT_COUNTS else jnp.int32

  def count_strip(strip: tuple[Array, Array]) -> Array:
    scores, own = strip

    def count_column(column: Array, above: Array) -> Array:
      reached = (scores >= own[:, column][:, None]).sum(-1, dtype=dtype)
      counts: Array = above.at[:, column].set(reached.astype(jnp.int32))
      return counts

    above: Array = jax.lax.fori_loop(0, depth, count_column, jnp.zeros_like(own, jnp.int32))
    return above

  rows = _rows_within(STRIP_BYTES, scores.shape[1])
  strips = jax.tree.map(lambda x: x.reshape(-1, min(rows, len(x)), x.shape[1]), (scores, own))
  counts: Array = jax.lax.map(count_strip, strips).reshape(own.shape)
  return counts


def _compare_queried(query: Array, gallery: Array, own: Array, depth: Array) -> tuple[Array, Array]:
  """Scores of each query's own images f32[B, S], and how many of all N reach each of them, itself included."""
  scores = block_scores(query, gallery)
  own_scores = jnp.take_along_axis(scores, own, axis=1)
  return own_scores, _count_above(scores, own_scores, depth)


def _compare_others(query: Array, gallery: Array, own_scores: Array, depth: Array) -> Array:
  return _count_above(block_scores(query, gallery), own_scores, depth)


@functools.cache
def _compiled(mesh: jax.sharding.Mesh) -> tuple[Any, Any]:
  """`_compare_queried` and `_compare_others` with the queries split over the devices; no device waits for another."""
  split, copied = batch_sharding(mesh).spec, replicated(mesh).spec
  shard_map = functools.partial(jax.shard_map, mesh=mesh, in_specs=(split, copied, split, copied), out_specs=split)
  return jax.jit(shard_map(_compare_queried)), jax.jit(shard_map(_compare_others))


def _rows_within(num_bytes: int, size: int) -> int:
  """Returns how many rows of `size` scores fit in `num_bytes`: a power of two, so that strips divide blocks."""
  return 1 << max(0, (num_bytes // (4 * max(size, 1))).bit_length() - 1)
