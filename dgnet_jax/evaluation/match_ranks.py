"""At which ranks every query's matches lie in a gallery of any size.

No sort of the gallery is needed: the rank of a match is the number of images with a higher score. So scores are
computed block by block on the devices, compared with those of the matches, and forgotten; memory is bounded by the
block.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import functools
import logging
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np

from dgnet_jax.sharding import DATA_AXIS, batch_sharding, make_mesh, replicated
from dgnet_jax.types import Array
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)


SCORE_BLOCK_BYTES = 64 * 2**20  # scores held at a time, over all devices
STRIP_BYTES = 5 * 2**19  # scores compared at a time, on a device
PROGRESS_SECONDS = 10.0  # between progress lines
MILLION = 10**6
LANES = 128  # galleries are padded to a multiple of it, and rows of own scores to one of 8: few sizes are compiled


@dataclasses.dataclass(frozen=True)
class Relations:
  """Which gallery images count for which query.

  Junk (identity -1) is in neither part. near: i64[N], gallery indices of the people that are asked for, a person's
  images side by side; far: i64[F], of everybody else, who can only be wrong. columns: i64[Q, S], places in `near` of
  each query's own person, matches first, padded with 0. match, junk: bool[Q, S], whether such a place is a match, or by
  the same camera and so no part of the ranking.
  """

  near: np.ndarray
  far: np.ndarray
  columns: np.ndarray
  match: np.ndarray
  junk: np.ndarray


def relate(
  query_identity: np.ndarray, query_camera: np.ndarray, gallery_identity: np.ndarray, gallery_camera: np.ndarray
) -> Relations:
  """Relations from who is on which image; arguments as of `ranking.rank`."""
  wanted = np.isin(gallery_identity, query_identity) & (gallery_identity > 0)
  near = np.flatnonzero(wanted)
  near = near[np.argsort(gallery_identity[near], kind='stable')]
  people = gallery_identity[near]
  start, end = (np.searchsorted(people, query_identity, side) for side in ('left', 'right'))
  width = -(-max(1, (end - start).max(initial=0)) // 8) * 8
  columns = start[:, None] + np.arange(width)
  own = columns < end[:, None]
  columns = np.where(own, columns, 0)
  same_camera = np.zeros_like(own)
  if len(near):
    same_camera = gallery_camera[near][columns] == query_camera[:, None]
  far = np.flatnonzero(~wanted & (gallery_identity >= 0))
  # Matches first: only those are compared with the gallery.
  order = np.argsort(same_camera + 2 * ~own, axis=1, kind='stable')
  arranged = [np.take_along_axis(x, order, axis=1) for x in (columns, own & ~same_camera, own & same_camera)]
  return Relations(near, far, *arranged)


def _scores(query: Array, gallery: Array) -> Array:
  return jnp.matmul(query, gallery.T, precision=jax.lax.Precision.HIGHEST)


def _count_above(scores: Array, own: Array, depth: Array) -> Array:
  """For each of the first `depth` columns of own [B, S] the scores [B, N] that are at least as high: i32[B, S].

  Strip by strip: every column passes over the scores again, which is five times faster while they are in the cache.
  """

  def count_strip(strip: tuple[Array, Array]) -> Array:
    scores, own = strip

    def count(column: Array, above: Array) -> Array:
      return above.at[:, column].set((scores >= own[:, column][:, None]).sum(-1, dtype=jnp.int32))

    return jax.lax.fori_loop(0, depth, count, jnp.zeros_like(own, jnp.int32))

  rows = _fitting(scores.shape[1], STRIP_BYTES)
  strips = jax.tree.map(lambda x: x.reshape(-1, min(rows, len(x)), x.shape[1]), (scores, own))
  return jax.lax.map(count_strip, strips).reshape(own.shape)


def _near(query: Array, gallery: Array, columns: Array, depth: Array) -> tuple[Array, Array]:
  """Scores of each query's own person f32[B, S], and how many of all N reach each of them, itself included."""
  scores = _scores(query, gallery)
  own = jnp.take_along_axis(scores, columns, axis=1)
  return own, _count_above(scores, own, depth)


def _far(query: Array, gallery: Array, own: Array, depth: Array) -> Array:
  return _count_above(_scores(query, gallery), own, depth)


@functools.cache
def _compiled(mesh: jax.sharding.Mesh) -> tuple[Any, Any]:
  """`_near` and `_far` with the queries split over the devices; each goes through its own."""
  split, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  near = jax.shard_map(_near, mesh=mesh, in_specs=(split, whole, split, whole), out_specs=split)
  far = jax.shard_map(_far, mesh=mesh, in_specs=(split, whole, split, whole), out_specs=split)
  return jax.jit(near), jax.jit(far)


def _fitting(size: int, num_bytes: int) -> int:
  """How many rows of `size` scores fit in `num_bytes`: a power of two, so that strips divide blocks."""
  return 1 << max(0, (num_bytes // (4 * max(size, 1))).bit_length() - 1)


def _runs(total: int, size: int) -> Iterator[slice]:
  for start in range(0, total, size):
    yield slice(start, min(start + size, total))


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
  missing = [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
  return np.pad(rows, missing) if size > len(rows) else rows


def _part_of_gallery(embedding: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
  """f32[at least `size`, D]; the rows that fill it up are NaN and so reach no score."""
  size = -(-max(size, len(index)) // LANES) * LANES
  part = np.full((size, embedding.shape[1]), np.nan, np.float32)
  part[: len(index)] = embedding[index]
  return part


def match_ranks(
  query_embedding: np.ndarray,
  gallery_embedding: np.ndarray,
  relations: Relations,
  *,
  mesh: jax.sharding.Mesh | None = None,
) -> np.ndarray:
  """Ranks of every query's matches by dot product, junk removed.

  Wrong images with the score of a match rank before it, so an embedding that says nothing earns nothing.

  Args:
    query_embedding: f32[Q, D].
    gallery_embedding: f32[G, D].
    relations: of `relate`.
    mesh: whose devices share the queries; this process's by default.

  Returns:
    i64[Q, S], 0 is best, ascending; -1 after the last match.
  """
  mesh = mesh or make_mesh(jax.local_devices())
  split, everywhere = batch_sharding(mesh), replicated(mesh)
  queries = np.asarray(query_embedding, np.float32)
  # Queries with as many matches share a block: it compares as often as its longest row needs.
  depth = relations.match.sum(axis=1)
  order = np.argsort(-depth, kind='stable')
  num_near, num_far = len(relations.near), len(relations.far)
  rows = mesh.size * min(
    _fitting(num_near, SCORE_BLOCK_BYTES // mesh.size), 1 << (-(-len(queries) // mesh.size) - 1).bit_length()
  )
  far_rows = max(1, min(SCORE_BLOCK_BYTES // (4 * rows), num_far))

  own = np.zeros(relations.columns.shape, np.float32)
  above = np.zeros(relations.columns.shape, np.int64)
  total = len(queries) * (num_near + num_far)
  progress, last = Progress(-(-total // MILLION), unit='million pairs'), time.monotonic()
  done = 0

  def told(block: slice, size: int) -> None:
    nonlocal done, last
    done += (block.stop - block.start) * size
    if time.monotonic() - last > PROGRESS_SECONDS:
      logger.info(f'ranking: {progress.line(done // MILLION)}')
      last = time.monotonic()

  put, (near, far) = functools.partial(jax.device_put, device=split), _compiled(mesh)
  if num_near:
    gallery = jax.device_put(_part_of_gallery(gallery_embedding, relations.near, 0), everywhere)
    for block in _runs(len(queries), rows):
      i = order[block]
      columns = put(_padded(relations.columns[i].astype(np.int32), rows))
      scores, counts = near(put(_padded(queries[i], rows)), gallery, columns, int(depth[i[0]]))
      own[i], above[i] = np.asarray(scores)[: len(i)], np.asarray(counts)[: len(i)]
      told(block, num_near)
    del gallery
  for chunk in _runs(num_far, far_rows):
    gallery = jax.device_put(_part_of_gallery(gallery_embedding, relations.far[chunk], far_rows), everywhere)
    for block in _runs(len(queries), rows):
      i = order[block]
      counts = far(put(_padded(queries[i], rows)), gallery, put(_padded(own[i], rows)), int(depth[i[0]]))
      above[i] += np.asarray(counts)[: len(i)]
      told(block, chunk.stop - chunk.start)
  return _ranks(own, above, relations)


def match_ranks_of_scores(
  blocks: Iterable[tuple[np.ndarray, np.ndarray]], relations: Relations, num_queries: int
) -> np.ndarray:
  """As `match_ranks`, for scores that are no dot products.

  Args:
    blocks: runs of queries i64[B] with their scores of the whole gallery f32[B, G].
    relations: of `relate`.
    num_queries: over all blocks.
  """
  own = np.zeros((num_queries, relations.columns.shape[1]), np.float32)
  above = np.zeros(own.shape, np.int64)
  ranked = np.concatenate([relations.near, relations.far])
  for queries, scores in blocks:
    kept = scores[:, ranked]
    own[queries] = np.take_along_axis(kept, relations.columns[queries], axis=1)
    for i, row in zip(queries, kept, strict=True):
      there = np.flatnonzero(relations.match[i])
      above[i, there] = [np.count_nonzero(row >= own[i, column]) for column in there]
  return _ranks(own, above, relations)


def _ranks(own: np.ndarray, above: np.ndarray, relations: Relations) -> np.ndarray:
  """Ranks from the scores of each query's own person f32[Q, S] and the images that reach them i64[Q, S].

  Of those, the person's own are taken off again: matches get the place among themselves instead, the others are junk.
  """
  ranks = np.full(own.shape, -1)
  for i, (scores, counts) in enumerate(zip(own, above, strict=True)):
    there = relations.match[i] | relations.junk[i]
    mine = np.sort(scores[there])
    match = scores[relations.match[i]]
    wrong = counts[relations.match[i]] - (len(mine) - np.searchsorted(mine, match))
    ranks[i, : len(match)] = np.sort(wrong) + np.arange(len(match))
  return ranks
