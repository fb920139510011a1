"""Do two images show one identity? Scores of pairs, and true positive rates at given false positive rates."""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.match_ranks import SCORE_BLOCK_BYTES, Relevance, judge_relevance

BINS = 2**16  # histogram bins over the range of the scores


def accepted_rates(query: Embeddings, gallery: Embeddings, *, score: float) -> tuple[float, float]:
  """Returns the fractions of positive and of negative pairs with at least this score; NaN if there are none.

  Args:
    query: Q images, with features f[Q, D].
    gallery: G images, with features f[G, D].
    score: the threshold.
  """
  relevance = judge_relevance(query, gallery)
  accepted, total = np.zeros(2, np.int64), np.zeros(2, np.int64)  # positive, negative
  for block, scores in _score_blocks(query, gallery, relevance):
    is_accepted, own = scores >= score, np.take_along_axis(scores, relevance.own[block], axis=1) >= score
    matches, junk = relevance.is_match[block], relevance.is_junk[block]
    accepted += (own & matches).sum(), is_accepted.sum() - (own & (matches | junk)).sum()
    total += matches.sum(), scores.size - matches.sum() - junk.sum()
  positive, negative = (float(a / t) if t else float('nan') for a, t in zip(accepted, total, strict=True))
  return positive, negative


def _score_blocks(
  query: Embeddings, gallery: Embeddings, relevance: Relevance
) -> Iterator[tuple[slice, npt.NDArray[np.floating]]]:
  """Yields some of the queries, and their scores with every ranked gallery image, in the order of `relevance`."""
  ranked = np.concatenate([relevance.queried, relevance.others])
  columns = gallery.features[ranked].T
  rows = max(1, SCORE_BLOCK_BYTES // (8 * max(1, len(ranked))))
  for start in range(0, len(query), rows):
    block = slice(start, start + rows)
    yield block, query.features[block] @ columns


@dataclasses.dataclass(frozen=True, eq=False)
class PairScores:
  """How many pairs of images have which score.

  edges: f64[BINS + 1], ascending; bin i has the scores from edges[i] up to edges[i + 1]. positive, negative:
  i64[BINS], the pairs of one identity and of two.
  """

  edges: npt.NDArray[np.float64]
  positive: npt.NDArray[np.int64]
  negative: npt.NDArray[np.int64]

  def histogram(self, bins: int) -> 'PairScores':
    """Returns the same pairs in few bins of equal width over the scores that occur."""
    used = np.flatnonzero(self.positive + self.negative)
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
    width = -(-(last + 1 - first) // bins)
    starts = np.arange(first, last + 1, width)
    ends = np.minimum(np.append(starts[1:], starts[-1] + width), len(self.positive))
    positive, negative = (np.add.reduceat(count[: ends[-1]], starts) for count in (self.positive, self.negative))
    return PairScores(np.append(self.edges[starts], self.edges[ends[-1]]), positive, negative)


class OperatingPoint(NamedTuple):
  """Pairs with at least the score `threshold` are accepted; the rates are fractions of all pairs of their kind."""

  false_positive_rate: float
  threshold: float
  true_positive_rate: float


def count_pairs(query: Embeddings, gallery: Embeddings) -> PairScores:
  """Counts the scores of all pairs of a query and a gallery image, scored by dot product; junk is left out.

  Scores are counted in 65,536 bins over their range, so memory does not grow with the number of pairs.

  Args:
    query: Q images, with features f[Q, D] already weighted by alpha.
    gallery: G images, with features f[G, D].
  """
  relevance = judge_relevance(query, gallery)
  positive, total = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
  # No score is larger than the product of the largest norms.
  bound = float(np.linalg.norm(query.features, axis=1).max() * np.linalg.norm(gallery.features, axis=1).max())
  scale = (BINS - 1) / (2 * bound) if bound else 0.0
  for block, scores in _score_blocks(query, gallery, relevance):
    bins = ((scores + bound) * scale).astype(np.int64).clip(0, BINS - 1)
    own = np.take_along_axis(bins, relevance.own[block], axis=1)
    total += np.bincount(bins.ravel(), minlength=BINS)
    total -= np.bincount(own[relevance.is_junk[block]], minlength=BINS)
    positive += np.bincount(own[relevance.is_match[block]], minlength=BINS)
  edges = np.linspace(-bound, bound, BINS)
  edges = np.append(edges, edges[-1] + (edges[1] - edges[0]))
  return PairScores(edges, positive, total - positive)


def operating_points(scores: PairScores, *, false_positive_rates: Sequence[float]) -> list[OperatingPoint]:
  """Finds the lowest thresholds that keep given false positive rates.

  A threshold accepts all pairs of a bin or none, so a rate is never too high.

  Args:
    scores: the pairs.
    false_positive_rates: the largest fractions of negative pairs that may be accepted, in [0, 1].

  Returns:
    A point for each of them, with its true positive rate; NaN if there are no positive or no negative pairs. The
    threshold is infinite where no bin can be accepted.
  """
  # Pairs in each bin and all above it.
  true_positives, false_positives = (np.cumsum(count[::-1])[::-1] for count in (scores.positive, scores.negative))
  if not true_positives[0] or not false_positives[0]:
    return [OperatingPoint(rate, float('nan'), float('nan')) for rate in false_positive_rates]
  points = []
  for rate in false_positive_rates:
    allowed = np.flatnonzero(false_positives <= rate * false_positives[0])
    threshold, accepted = float('inf'), 0.0
    if len(allowed):
      threshold = float(scores.edges[allowed[0]])
      accepted = float(true_positives[allowed[0]] / true_positives[0])
    points.append(OperatingPoint(rate, threshold, accepted))
  return points


def true_positive_rates(
  query: Embeddings, gallery: Embeddings, *, false_positive_rates: Sequence[float]
) -> list[float]:
  """Returns TPR@FPR over all pairs of a query and a gallery image; see `count_pairs` and `operating_points`."""
  points = operating_points(count_pairs(query, gallery), false_positive_rates=false_positive_rates)
  return [point.true_positive_rate for point in points]
