"""Re-identification scores: the CMC curve and mean average precision of a ranking by dot product.

Two protocols, named:
  release: trapezoidal average precision; the curve and the mean are over all queries, those without a match included
    (release fact 42).
  standard: rectangular average precision over the queries that have a match, as in fast-reid and torchreid.

Identities: -1 is junk, which is removed from every ranking; 0 is a distractor, which stays and matches nobody. A
gallery image of the query's person by the query's camera is junk too.
"""

from collections.abc import Iterable
import dataclasses
from typing import Any

import jax
import numpy as np

from dgnet_jax.evaluation.match_ranks import match_ranks, match_ranks_of_scores, relate

Floats = np.ndarray[Any, np.dtype[np.floating]]
Integers = np.ndarray[Any, np.dtype[np.integer]]

PROTOCOLS = ('release', 'standard')
FINE_ONLY = -1.0  # the alpha that ranks by the fine-grained half alone


@dataclasses.dataclass(frozen=True)
class RankingResult:
  """How well the queries found their matches.

  cmc: f32[G], at k - 1 the share of queries with a match among their k best. mean_inverse_negative_penalty: mINP, the
  mean over valid queries of the number of matches over the rank of the last one (Ye et al., arXiv 2001.04193); None
  where it was not computed. per_query_ap: f64[Q], 0 without a match. per_query_valid: bool[Q], whether the gallery
  holds a match.
  """

  cmc: np.ndarray
  mean_average_precision: float
  mean_inverse_negative_penalty: float | None
  per_query_ap: np.ndarray
  per_query_valid: np.ndarray

  def at(self, k: int) -> float:
    """Rank-k: the share of queries with a match among their k best; k beyond the gallery is its end."""
    return float(self.cmc[min(k, len(self.cmc)) - 1])


def weighted(query_embedding: Floats, alpha: float | None) -> Floats:
  """The query embeddings whose dot product with the gallery is the score (release fact 42).

  Args:
    query_embedding: f32[Q, D].
    alpha: as of `rank`.
  """
  if alpha is None:
    return query_embedding
  half = query_embedding.shape[1] // 2
  if query_embedding.shape[1] != 2 * half:
    raise ValueError(f'alpha weighs the second half of an embedding, but {query_embedding.shape=} has no halves')
  scaled = query_embedding.copy()
  if alpha == FINE_ONLY:
    scaled[:, :half] = 0
  elif alpha >= 0:
    scaled[:, half:] *= alpha
  else:
    raise ValueError(f'{alpha=} is neither a weight of at least 0 nor {FINE_ONLY:g} (the second half alone)')
  return scaled


def _check(embedding: Floats, identity: Integers, camera: Integers, what: str) -> None:
  if embedding.ndim != 2 or not len(embedding) == len(identity) == len(camera) > 0:
    raise ValueError(f'{what}: {embedding.shape=} {identity.shape=} {camera.shape=}; expected [N > 0, D], [N], [N]')
  if not np.isfinite(embedding).all():
    raise ValueError(f'{what}: the embedding has values that are not finite')


def _relevance(
  identity: int, camera: int, gallery_identity: Integers, gallery_camera: Integers
) -> tuple[np.ndarray, np.ndarray]:
  """Masks bool[G] of one query's right and wrong gallery images; what is in neither is junk."""
  same = gallery_identity == identity
  right = same & (gallery_camera != camera) & (gallery_identity > 0)
  wrong = (~same | (gallery_identity == 0)) & (gallery_identity >= 0)
  return right, wrong


def _average_precision(ranks: np.ndarray, protocol: str) -> np.ndarray:
  """f64[Q] from ranks i64[Q, S] (0 is best, ascending, -1 after the last); 0 without a match."""
  there = ranks >= 0
  index = np.arange(ranks.shape[1])
  precision = (index + 1) / (np.where(there, ranks, 0) + 1)
  if protocol == 'release':
    before = np.where(ranks > 0, index / np.maximum(ranks, 1), 1.0)
    precision = (before + precision) / 2
  return np.where(there, precision, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def _summary(
  first_match_counts: np.ndarray,
  average_precision: np.ndarray,
  valid: np.ndarray,
  protocol: str,
  inverse_negative_penalty: float | None = None,
) -> RankingResult:
  """The result over all queries (release) or the valid ones (standard).

  Args:
    first_match_counts: f64[G], the number of queries whose best match has each rank.
    average_precision: f64[Q].
    valid: bool[Q].
    protocol: release or standard.
    inverse_negative_penalty: the mean over the valid queries.
  """
  count = len(valid) if protocol == 'release' else int(valid.sum())
  if not count:
    raise ValueError('no query has a match in the gallery, so the standard protocol has nothing to average')
  # Float32 before the division, as in the release, so that its curves are met exactly.
  cmc = first_match_counts.cumsum().astype(np.float32) / np.float32(count)
  mean = float(average_precision.sum() / count)
  return RankingResult(cmc, mean, inverse_negative_penalty, average_precision, valid)


def _check_protocol(protocol: str) -> None:
  if protocol not in PROTOCOLS:
    raise ValueError(f'{protocol=} is not one of {PROTOCOLS}')


def rank(
  query_embedding: Floats,
  query_identity: Integers,
  query_camera: Integers,
  gallery_embedding: Floats,
  gallery_identity: Integers,
  gallery_camera: Integers,
  *,
  alpha: float | None,
  protocol: str = 'release',
  mesh: jax.sharding.Mesh | None = None,
) -> RankingResult:
  """Ranks the gallery for every query, block by block: memory is bounded by a block of scores, not by Q x G.

  Ties go against the embedding: wrong images with the score of a right one rank before it.

  Args:
    query_embedding: f32[Q, D]; each half normalised, as `inference.embed` gives it.
    query_identity: i32[Q].
    query_camera: i32[Q].
    gallery_embedding: f32[G, D].
    gallery_identity: i32[G]; -1 junk, 0 distractor.
    gallery_camera: i32[G].
    alpha: weight of the query's second (fine-grained) half; 0 is the first half alone, -1 the second alone. None takes
      the embedding as it is, without halves (a teacher's).
    protocol: release or standard, see the module.
    mesh: whose devices share the queries; this process's by default.

  Returns:
    RankingResult over the Q queries.

  Raises:
    ValueError: shapes do not fit, an embedding is not finite, alpha or protocol is unknown, or (standard) no query has
      a match.
  """
  _check_protocol(protocol)
  _check(query_embedding, query_identity, query_camera, 'queries')
  _check(gallery_embedding, gallery_identity, gallery_camera, 'gallery')
  relations = relate(query_identity, query_camera, gallery_identity, gallery_camera)
  ranks = match_ranks(weighted(query_embedding, alpha), gallery_embedding, relations, mesh=mesh)
  return _result(ranks, len(gallery_identity), protocol)


def rank_scores(
  blocks: Iterable[tuple[np.ndarray, np.ndarray]],
  query_identity: Integers,
  query_camera: Integers,
  gallery_identity: Integers,
  gallery_camera: Integers,
  *,
  protocol: str = 'release',
) -> RankingResult:
  """`rank` for scores that are no dot products (re-ranking).

  Args:
    blocks: runs of queries i64[B] with their scores of the whole gallery f32[B, G], higher is better; every query once.
    query_identity: i32[Q].
    query_camera: i32[Q].
    gallery_identity: i32[G]; -1 junk, 0 distractor.
    gallery_camera: i32[G].
    protocol: release or standard, see the module.

  Raises:
    ValueError: the protocol is unknown, or (standard) no query has a match.
  """
  _check_protocol(protocol)
  relations = relate(query_identity, query_camera, gallery_identity, gallery_camera)
  ranks = match_ranks_of_scores(blocks, relations, len(query_identity))
  return _result(ranks, len(gallery_identity), protocol)


def _result(ranks: np.ndarray, num_gallery: int, protocol: str) -> RankingResult:
  """The result from ranks i64[Q, S] of `match_ranks`."""
  count = (ranks >= 0).sum(axis=1)
  valid = count > 0
  first_match_counts = np.bincount(ranks[valid, 0], minlength=num_gallery)
  penalty = float((count[valid] / (ranks[valid].max(axis=1) + 1)).mean()) if valid.any() else 0.0
  return _summary(first_match_counts, _average_precision(ranks, protocol), valid, protocol, penalty)


def chance(
  query_identity: Integers,
  query_camera: Integers,
  gallery_identity: Integers,
  gallery_camera: Integers,
  *,
  protocol: str = 'release',
) -> RankingResult:
  """What a random order of the gallery scores on average: exact expectations, nothing is drawn.

  With n images that are not junk, m of them matches: an image at rank k is a match with probability m / n, and then
  each one before it with (m - 1) / (n - 1), which gives the mean precision in closed form.

  Args:
    query_identity: i32[Q].
    query_camera: i32[Q].
    gallery_identity: i32[G].
    gallery_camera: i32[G].
    protocol: release or standard, see the module.

  Returns:
    RankingResult of expected values.

  Raises:
    ValueError: the protocol is unknown, or (standard) no query has a match.
  """
  _check_protocol(protocol)
  relations = relate(query_identity, query_camera, gallery_identity, gallery_camera)
  ranked = len(relations.near) + len(relations.far) - relations.junk.sum(axis=1)
  counts = np.stack([ranked, relations.match.sum(axis=1)], axis=1)
  valid = counts[:, 1] > 0
  average_precision = np.zeros(len(counts))
  average_precision[valid] = [_expected_ap(n, m, protocol) for n, m in counts[valid]]
  first_match_counts = np.zeros(len(gallery_identity))
  for (n, m), how_many in zip(*np.unique(counts[valid], axis=0, return_counts=True), strict=True):
    rank_of_first = np.arange(n - m + 1)
    none_so_far = np.cumprod((n - m - rank_of_first) / (n - rank_of_first))  # no match in ranks 0..k
    first_match_counts[: n - m + 1] += how_many * -np.diff(none_so_far, prepend=1.0)
  return _summary(first_match_counts, average_precision, valid, protocol)


def _expected_ap(num_gallery: int, num_matches: int, protocol: str) -> float:
  """Mean average precision over all orders of a gallery with these counts."""
  n, m = int(num_gallery), int(num_matches)
  harmonic = float(np.sum(1.0 / np.arange(1, n + 1)))
  others = (m - 1) / (n - 1) if n > 1 else 0.0
  rectangular = (harmonic + (n - harmonic) * others) / n
  return rectangular if protocol == 'standard' else (rectangular + m / n) / 2


def multi_query_embedding(
  query_embedding: Floats,
  query_identity: Integers,
  query_camera: Integers,
  embedding: Floats,
  identity: Integers,
  camera: Integers,
) -> Floats:
  """For every query the mean embedding of all images of its person by its camera, not normalised again (fact 42).

  A query without such an image keeps its own embedding.

  Args:
    query_embedding: f32[Q, D].
    query_identity: i32[Q].
    query_camera: i32[Q].
    embedding: f32[M, D], of the extra images (Market-1501's gt_bbox).
    identity: i32[M].
    camera: i32[M].

  Returns:
    f32[Q, D].
  """
  pooled = query_embedding.copy()
  for i in range(len(query_embedding)):
    same = (identity == query_identity[i]) & (camera == query_camera[i])
    if same.any():
      pooled[i] = embedding[same].mean(axis=0)
  return pooled


def best_matches(
  query_embedding: Floats,
  query_identity: Integers,
  query_camera: Integers,
  gallery_embedding: Floats,
  gallery_identity: Integers,
  gallery_camera: Integers,
  *,
  alpha: float | None,
  count: int,
) -> list[np.ndarray]:
  """Gallery indices of every query's best images, the best first, without junk.

  Args: as of `rank`, and count: how many to give.

  Returns:
    Q arrays i64[at most count].
  """
  best = []
  for i, query in enumerate(weighted(query_embedding, alpha)):
    right, wrong = _relevance(query_identity[i], query_camera[i], gallery_identity, gallery_camera)
    candidates = np.flatnonzero(right | wrong)
    order = np.argsort(-(gallery_embedding[candidates] @ query), kind='stable')
    best.append(candidates[order[:count]])
  return best
