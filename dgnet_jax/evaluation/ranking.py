"""Re-identification scores: the CMC curve and mean average precision of a ranking by dot product.

Two protocols:
  release: trapezoidal average precision; the curve and the mean are over all queries, including those without a match
    (release fact 42).
  standard: rectangular average precision over the queries that have a match, as in fast-reid and torchreid.

Gallery images of identity -1 (junk) are removed from every ranking; those of identity 0 (distractors) stay and match no
query. A gallery image of the query's identity and camera is junk too.
"""

from collections.abc import Iterable
import dataclasses

import jax
import numpy as np
import numpy.typing as npt

from dgnet_jax.evaluation.embeddings import Embeddings, Labels, weighted
from dgnet_jax.evaluation.match_ranks import judge_relevance, match_ranks, match_ranks_of_scores

PROTOCOLS = ('release', 'standard')


@dataclasses.dataclass(frozen=True)
class RankingResult:
  """How well Q queries found their matches in a gallery of G images.

  cmc: f32[G]; entry k - 1 is the fraction of queries with a match among their k best. mean_inverse_negative_penalty:
  mINP, the mean over valid queries of the number of matches over the rank of the last one (Ye et al., arXiv
  2001.04193); None if not computed. per_query_ap: f64[Q], 0 without a match. per_query_valid: bool[Q], True if the
  gallery holds a match.
  """

  cmc: npt.NDArray[np.float32]
  mean_average_precision: float
  mean_inverse_negative_penalty: float | None
  per_query_ap: npt.NDArray[np.float64]
  per_query_valid: npt.NDArray[np.bool_]

  def at(self, k: int) -> float:
    """Rank-k: the fraction of queries with a match among their k best. A k above G counts as G."""
    return float(self.cmc[min(k, len(self.cmc)) - 1])


def rank(
  query: Embeddings,
  gallery: Embeddings,
  *,
  alpha: float | None,
  protocol: str = 'release',
  mesh: jax.sharding.Mesh | None = None,
) -> RankingResult:
  """Ranks the gallery for every query, in blocks: memory is bounded by a block of scores, not by Q x G.

  Ties count against the embedding: negatives with the score of a match rank before it.

  Args:
    query: Q images with features f32[Q, D], each half normalized.
    gallery: G images with features f32[G, D].
    alpha: weight of the query's second (fine-grained) half; 0 is the first half alone, -1 the second alone. None takes
      the features as they are (a teacher's, which have no halves).
    protocol: release or standard, see the module.
    mesh: the devices that share the queries; by default those of this process.

  Returns:
    RankingResult over the Q queries.

  Raises:
    ValueError: shapes do not fit, features are not finite, alpha or protocol is unknown, or (standard) no query has a
      match.
  """
  _check_protocol(protocol)
  _check(query, 'query')
  _check(gallery, 'gallery')
  if query.features.shape[1] != gallery.features.shape[1]:
    raise ValueError(f'{query.features.shape=} {gallery.features.shape=}: different numbers of features')
  relevance = judge_relevance(query, gallery)
  ranks = match_ranks(weighted(query, alpha).features, gallery.features, relevance, mesh=mesh)
  return _result(ranks, len(gallery), protocol)


def rank_scores(
  blocks: Iterable[tuple[np.ndarray, np.ndarray]], query: Labels, gallery: Labels, *, protocol: str = 'release'
) -> RankingResult:
  """Like `rank`, for scores that are not dot products (re-ranking).

  Args:
    blocks: indices of queries i64[B] with their scores of the gallery f32[B, G], higher is better; every query once.
    query: labels of Q images.
    gallery: labels of G images.
    protocol: release or standard, see the module.

  Returns:
    RankingResult over the Q queries.

  Raises:
    ValueError: the protocol is unknown, or (standard) no query has a match.
  """
  _check_protocol(protocol)
  ranks = match_ranks_of_scores(blocks, judge_relevance(query, gallery))
  return _result(ranks, len(gallery.identity), protocol)


def chance(query: Labels, gallery: Labels, *, protocol: str = 'release') -> RankingResult:
  """Computes the expected scores of a random order of the gallery, in closed form.

  With n images that are not junk, m of them matches: an image at rank k is a match with probability m / n, and given
  that, each one before it with probability (m - 1) / (n - 1). This gives the mean precision.

  Args:
    query: labels of Q images.
    gallery: labels of G images.
    protocol: release or standard, see the module.

  Returns:
    RankingResult of expected values, without mINP.

  Raises:
    ValueError: the protocol is unknown, or (standard) no query has a match.
  """
  _check_protocol(protocol)
  relevance = judge_relevance(query, gallery)
  num_ranked = len(relevance.queried) + len(relevance.others) - relevance.is_junk.sum(axis=1)
  counts = np.stack([num_ranked, relevance.is_match.sum(axis=1)], axis=1)
  valid = counts[:, 1] > 0
  average_precision = np.zeros(len(counts))
  average_precision[valid] = [_expected_ap(n, m, protocol) for n, m in counts[valid]]
  first_match_counts = np.zeros(len(gallery.identity))
  for (n, m), num_queries in zip(*np.unique(counts[valid], axis=0, return_counts=True), strict=True):
    rank_of_first = np.arange(n - m + 1)
    no_match_yet = np.cumprod((n - m - rank_of_first) / (n - rank_of_first))  # probability of no match in ranks 0..k
    first_match_counts[: n - m + 1] += num_queries * -np.diff(no_match_yet, prepend=1.0)
  return _summary(first_match_counts, average_precision, valid, protocol)


def best_matches(query: Embeddings, gallery: Embeddings, *, alpha: float | None, count: int) -> list[np.ndarray]:
  """Finds every query's most similar gallery images, without junk.

  Args:
    query: Q images.
    gallery: G images.
    alpha: as for `rank`.
    count: number of images per query.

  Returns:
    Q arrays i64[at most count] of gallery indices, the most similar first.
  """
  best = []
  for i, features in enumerate(weighted(query, alpha).features):
    own = (gallery.identity == query.identity[i]) & (gallery.camera == query.camera[i]) & (gallery.identity > 0)
    ranked = np.flatnonzero(~own & (gallery.identity >= 0))
    order = np.argsort(-(gallery.features[ranked] @ features), kind='stable')
    best.append(ranked[order[:count]])
  return best


def _check_protocol(protocol: str) -> None:
  if protocol not in PROTOCOLS:
    raise ValueError(f'{protocol=} is not one of {PROTOCOLS}')


def _check(images: Embeddings, name: str) -> None:
  features, identity, camera = images.features, images.identity, images.camera
  if features.ndim != 2 or not len(features) == len(identity) == len(camera) > 0:
    raise ValueError(f'{name}: {features.shape=} {identity.shape=} {camera.shape=}; expected [N > 0, D], [N], [N]')
  if not np.isfinite(features).all():
    raise ValueError(f'{name}: the features are not finite')


def _result(ranks: np.ndarray, num_gallery: int, protocol: str) -> RankingResult:
  """Returns the result from ranks i64[Q, S] of `match_ranks`."""
  count = (ranks >= 0).sum(axis=1)
  valid = count > 0
  first_match_counts = np.bincount(ranks[valid, 0], minlength=num_gallery)
  penalty = float((count[valid] / (ranks[valid].max(axis=1) + 1)).mean()) if valid.any() else 0.0
  return _summary(first_match_counts, _average_precision(ranks, protocol), valid, protocol, penalty)


def _average_precision(ranks: np.ndarray, protocol: str) -> npt.NDArray[np.float64]:
  """Returns f64[Q] from ranks i64[Q, S] (0 is best, ascending, -1 after the last); 0 without a match."""
  is_match = ranks >= 0
  index = np.arange(ranks.shape[1])
  precision = (index + 1) / (np.where(is_match, ranks, 0) + 1)
  if protocol == 'release':
    before = np.where(ranks > 0, index / np.maximum(ranks, 1), 1.0)
    precision = (before + precision) / 2
  mean: npt.NDArray[np.float64] = np.where(is_match, precision, 0).sum(axis=1) / np.maximum(is_match.sum(axis=1), 1)
  return mean


def _summary(
  first_match_counts: np.ndarray,
  average_precision: npt.NDArray[np.float64],
  valid: npt.NDArray[np.bool_],
  protocol: str,
  inverse_negative_penalty: float | None = None,
) -> RankingResult:
  """Averages over all queries (release) or the valid ones (standard).

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
  # Float32 before the division, as in the release, so that the curves are equal.
  cmc = first_match_counts.cumsum().astype(np.float32) / np.float32(count)
  mean = float(average_precision.sum() / count)
  return RankingResult(cmc, mean, inverse_negative_penalty, average_precision, valid)


def _expected_ap(num_ranked: int, num_matches: int, protocol: str) -> float:
  """Computes the mean average precision over all orders of a gallery with these counts."""
  n, m = int(num_ranked), int(num_matches)
  harmonic = float(np.sum(1.0 / np.arange(1, n + 1)))
  others = (m - 1) / (n - 1) if n > 1 else 0.0
  rectangular = (harmonic + (n - harmonic) * others) / n
  return rectangular if protocol == 'standard' else (rectangular + m / n) / 2
