"""Finds the entries of a gallery that are most similar to queries: exactly, in blocks, without sorting the gallery."""

import numpy as np
import numpy.typing as npt

from dgnet_jax.config.schema import RerankingConfig
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.blocks import slices
from dgnet_jax.evaluation.reranking import Reranker

# Compared at a time: large blocks, because every product of one starts the threads of the BLAS library anew.
BLOCK_ENTRIES, BLOCK_QUERIES = 2**18, 64
CANDIDATES = 200  # entries that re-ranking orders, unless more are asked for

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def most_similar(features: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], count: int | None) -> list[Found]:
  """Finds the best entries of every query by dot product; equal scores keep the order of the gallery.

  Args:
    features: f32[N, D].
    queries: f32[Q, D].
    count: entries per query; None is all.

  Returns:
    For each query indices i64[k] and scores f32[k], the highest first, with k = min(count, N).

  Raises:
    UserError: scores are not finite.
  """
  count = len(features) if count is None else min(count, len(features))
  found: list[Found] = []
  for some in slices(len(queries), BLOCK_QUERIES):
    best = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries[some]]
    for block in slices(len(features), BLOCK_ENTRIES):
      scores = features[block] @ queries[some].T
      if not np.isfinite(scores).all():
        raise UserError(f'entries {block.start} to {block.stop - 1} of the gallery have scores that are not finite')
      best = [_merged(so_far, scores[:, i], block.start, count) for i, so_far in enumerate(best)]
    found += [_sorted(*pair) for pair in best]
  return found


def _merged(so_far: Found, scores: npt.NDArray[np.float32], start: int, count: int) -> Found:
  """Returns the `count` best of those so far and of a block that starts at entry `start`, in the gallery's order."""
  index, best = so_far
  # Of equal scores the earlier entries are better.
  new = np.flatnonzero(scores > best.min()) if len(best) == count and count else np.arange(len(scores))
  index, best = np.concatenate([index, new + start]), np.concatenate([best, scores[new]])
  if len(best) > count:
    lowest = np.partition(best, len(best) - count)[len(best) - count]
    chosen = best > lowest
    chosen[np.flatnonzero(best == lowest)[: count - int(chosen.sum())]] = True
    index, best = index[chosen], best[chosen]
  return index, best


def _sorted(index: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> Found:
  order = np.argsort(-scores, kind='stable')
  return index[order], scores[order]


def rerank(
  query: npt.NDArray[np.float32], candidates: npt.NDArray[np.float32], settings: RerankingConfig
) -> npt.NDArray[np.int64]:
  """Orders the best entries of a query by k-reciprocal re-ranking among themselves.

  Args:
    query: f32[D], an embedding.
    candidates: f32[N, D], embeddings, the most similar first.
    settings: the config's `evaluation.reranking`.

  Returns:
    i64[N], indices of the candidates, the best first. With fewer than k1 of them, all may be neighbours.
  """
  if not len(candidates):
    return np.zeros(0, np.int64)
  k1 = min(settings.k1, len(candidates))
  reranker = Reranker(query[None], candidates, k1=k1, k2=min(settings.k2, k1), weight=settings.weight)
  ((_, scores),) = reranker.blocks()
  order: npt.NDArray[np.int64] = np.argsort(-scores[0], kind='stable')
  return order
