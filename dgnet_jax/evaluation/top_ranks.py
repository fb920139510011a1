"""The best gallery images of every query, from a gallery of any size.

Scores are computed in blocks on the devices, and only the best so far are kept. A block has the same shape on every
device, however many there are, so that the results do not depend on their number.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from dgnet_jax.evaluation.blocks import LANES, block_scores, gallery_part, padded, round_up, slices
from dgnet_jax.evaluation.embeddings import Embeddings, weighted
from dgnet_jax.evaluation.match_ranks import Relevance, judge_relevance
from dgnet_jax.sharding import batch_sharding, make_mesh, replicated
from dgnet_jax.types import Array

BLOCK_QUERIES, BLOCK_GALLERY = 1024, 2**14  # compared at a time on one device: 64 MiB of scores


def top_ranks(
  query: Embeddings,
  gallery: Embeddings,
  *,
  alpha: float | None,
  count: int,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
  """Finds the best-ranked gallery images of every query, without junk, in the order in which `ranking.rank` counts.

  Among equal scores negatives come before matches, and otherwise the order is that of the gallery.

  Args:
    query: Q images with finite features f32[Q, D].
    gallery: G images with finite features f32[G, D].
    alpha: as for `ranking.rank`.
    count: images per query.
    mesh: the devices that share the queries; by default those of this process.

  Returns:
    (i64[Q, k], f32[Q, k]) with k <= count: indices into the gallery, the best first, and their scores. After the last
    image of a query indices are -1, and scores -inf.
  """
  relevance = judge_relevance(query, gallery)
  ranked = np.flatnonzero(gallery.identity >= 0)
  own = _own_images(relevance, ranked)
  count = min(count, len(ranked))
  if not count:
    return np.zeros((len(query), 0), np.int64), np.zeros((len(query), 0), np.float32)
  best, index, own_scores = _best_negatives(
    weighted(query, alpha).features, gallery.features, ranked, own, count, mesh or make_mesh(jax.local_devices())
  )
  # A query's images are its negatives and its matches, so the best of all are among the best negatives and all matches.
  scores = np.concatenate([best, np.where(relevance.is_match, own_scores, -np.inf)], axis=1)
  index = np.concatenate([index, own], axis=1)
  is_match = np.concatenate([np.zeros_like(best, bool), relevance.is_match], axis=1)
  order = np.lexsort((index, is_match, -scores), axis=-1)[:, :count]
  scores, index = np.take_along_axis(scores, order, axis=1), np.take_along_axis(index, order, axis=1)
  return np.where(scores > -np.inf, ranked[np.minimum(index, len(ranked) - 1)], -1), scores


def _own_images(relevance: Relevance, ranked: np.ndarray) -> npt.NDArray[np.int64]:
  """Returns i64[Q, S]: where in `ranked` the images of each query's identity are; padding is beyond its end."""
  if not len(relevance.queried):
    return np.full(relevance.own.shape, len(ranked))
  own = np.searchsorted(ranked, relevance.queried[relevance.own])
  return np.where(relevance.is_match | relevance.is_junk, own, len(ranked))


def _best_negatives(
  query_features: np.ndarray,
  gallery_features: np.ndarray,
  ranked: np.ndarray,
  own: np.ndarray,
  count: int,
  mesh: jax.sharding.Mesh,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
  """Compares queries with a gallery block by block.

  Args:
    query_features: f32[Q, D].
    gallery_features: f32[G, D].
    ranked: i64[R], indices of the gallery images that are not junk of all.
    own: i64[Q, S], from `_own_images`.
    count: at most R.
    mesh: the devices that share the queries.

  Returns:
    Scores f32[Q, count] and places in `ranked` i64[Q, count] of each query's best images of other people, best first,
    -inf after the last; and scores f32[Q, S] of its own images.
  """
  queries = np.asarray(query_features, np.float32)
  rows = mesh.size * min(BLOCK_QUERIES, 1 << (len(queries) - 1).bit_length())
  columns = min(BLOCK_GALLERY, round_up(len(ranked), LANES))
  put, everywhere = functools.partial(jax.device_put, device=batch_sharding(mesh)), replicated(mesh)
  blocks = list(slices(len(queries), rows))
  sides = [(put(padded(queries[block], rows)), put(padded(own[block].astype(np.int32), rows))) for block in blocks]
  nothing = np.full((rows, count), -np.inf, np.float32), np.zeros((rows, count), np.int32)
  found = [jax.tree.map(put, (np.zeros((rows, own.shape[1]), np.float32), *nothing)) for _ in blocks]
  merge = _compiled(mesh)
  for part in slices(len(ranked), columns):
    gallery = jax.device_put(gallery_part(gallery_features, ranked[part], columns), everywhere)
    start = jax.device_put(np.int32(part.start), everywhere)
    found = [merge(*side, gallery, start, so_far) for side, so_far in zip(sides, found, strict=True)]
  own_scores, best, index = (
    np.concatenate([np.asarray(arrays[i]) for arrays in found])[: len(queries)] for i in range(3)
  )
  return best, index.astype(np.int64), own_scores


def _merge_block(query: Array, own: Array, gallery: Array, start: Array, found: tuple[Array, ...]) -> tuple[Array, ...]:
  """Merges a block of the gallery, from place `start` on, into what `_best_negatives` returns."""
  own_scores, best, index = found
  scores, width = block_scores(query, gallery), gallery.shape[0]
  column = own - start
  is_here = (column >= 0) & (column < width)
  here = jnp.take_along_axis(scores, jnp.clip(column, 0, width - 1), axis=1)
  own_scores = jnp.where(is_here, here, own_scores)
  scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)  # padding of the gallery
  rows = jnp.arange(len(scores))[:, None]
  scores = scores.at[rows, jnp.where(is_here, column, width)].set(-jnp.inf, mode='drop')
  new, places = jax.lax.top_k(scores, min(best.shape[1], width))
  # Of equal scores top_k takes the first, which are those of earlier blocks.
  best, chosen = jax.lax.top_k(jnp.concatenate([best, new], axis=1), best.shape[1])
  index = jnp.take_along_axis(jnp.concatenate([index, places + start], axis=1), chosen, axis=1)
  return own_scores, best, index


@functools.cache
def _compiled(mesh: jax.sharding.Mesh) -> Any:
  """`_merge_block` with the queries split over the devices; no device waits for another."""
  split, copied = batch_sharding(mesh).spec, replicated(mesh).spec
  return jax.jit(
    jax.shard_map(_merge_block, mesh=mesh, in_specs=(split, split, copied, copied, split), out_specs=split)
  )
