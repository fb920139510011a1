"""Calibration: from which score on do two images show one person, if few pairs of two people may be taken for one?"""

from collections.abc import Sequence
import dataclasses
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.match_ranks import SCORE_BLOCK_BYTES, judge_relevance

ROUNDS = 500  # of the bootstrap
PERCENTILES = 2.5, 97.5
MIN_TAIL = 10_000  # negative pairs of the highest scores that are kept, at least
TAIL_MARGIN = 4  # and as a multiple of those that may be accepted, so that resampled thresholds are among them

Interval = tuple[float | None, float | None]  # None is an end that is not known


@dataclasses.dataclass(frozen=True)
class CalibratedThreshold:
  """The lowest score that is accepted, and what it leads to.

  Attributes:
    false_positive_rate: the largest fraction of negative pairs that may be accepted.
    score: pairs with at least this score are accepted.
    true_positive_rate: the fraction of positive pairs that is accepted.
    score_interval, true_positive_rate_interval: 95 % intervals of both, by the bootstrap over identities. A rate of
      less than one pair cannot be seen: its score has no upper end, and its true-positive rate no lower one.
  """

  false_positive_rate: float
  score: float
  true_positive_rate: float
  score_interval: Interval
  true_positive_rate_interval: Interval


@dataclasses.dataclass(frozen=True)
class CalibrationResult:
  """Thresholds, in the order of the rates, and the pairs and people that they are from."""

  thresholds: tuple[CalibratedThreshold, ...]
  num_positive_pairs: int
  num_negative_pairs: int
  num_identities: int


class _Pairs(NamedTuple):
  """Pairs of a query and a gallery image, without junk.

  Attributes:
    positive: f32[P], scores of the pairs of one person.
    person: i64[P], index of that person.
    negative: f32[T], the highest scores of pairs of two people, in descending order.
    people: i64[2, T], indices of the two.
    num_negative: of all such pairs.
    query_counts, gallery_counts: i64[I], images of each person. Distractors are the person of index 0.
  """

  positive: npt.NDArray[np.float32]
  person: npt.NDArray[np.int64]
  negative: npt.NDArray[np.float32]
  people: npt.NDArray[np.int64]
  num_negative: int
  query_counts: npt.NDArray[np.int64]
  gallery_counts: npt.NDArray[np.int64]


def calibrate(
  query: Embeddings, gallery: Embeddings, *, false_positive_rates: Sequence[float], seed: int = 0
) -> CalibrationResult:
  """Finds the threshold for each false-positive rate over all pairs, scored by dot product; junk is left out.

  The bootstrap draws people with replacement: a pair counts as often as both of its people were drawn. Its intervals
  are wide rather than narrow (Owen, doi 10.1214/07-AOAS122). Distractors, whose people are not known, are not drawn.

  Args:
    query: Q images.
    gallery: G images.
    false_positive_rates: in (0, 1).
    seed: of the bootstrap.

  Raises:
    ValueError: there are no positive or no negative pairs, or a rate is not in (0, 1).
  """
  if not all(0 < rate < 1 for rate in false_positive_rates):
    raise ValueError(f'{false_positive_rates=} are not in (0, 1)')
  pairs = _collect(query, gallery, max(false_positive_rates))
  if not len(pairs.positive) or not pairs.num_negative:
    raise ValueError(f'{len(pairs.positive)} positive and {pairs.num_negative} negative pairs: both are needed')
  plain = np.ones(len(pairs.query_counts))
  drawn = _draws(pairs, seed)
  thresholds = []
  for rate in false_positive_rates:
    score, true_rate = _threshold(pairs, plain, rate)
    resampled = np.array([_threshold(pairs, weight, rate) for weight in drawn])
    (low, high), (worst, best) = np.percentile(resampled, PERCENTILES, axis=0).T.tolist()
    if not is_visible(rate, pairs.num_negative):
      high, worst = None, None
    thresholds.append(CalibratedThreshold(rate, score, true_rate, (low, high), (worst, best)))
  num_identities = int((pairs.query_counts + pairs.gallery_counts)[1:].astype(bool).sum())
  return CalibrationResult(tuple(thresholds), len(pairs.positive), pairs.num_negative, num_identities)


def is_visible(rate: float, num_negative: int) -> bool:
  """Returns True if a false-positive rate is at least one of so many pairs of two people."""
  return rate * num_negative * (1 + 1e-12) >= 1


def _collect(query: Embeddings, gallery: Embeddings, largest_rate: float) -> _Pairs:
  """Scores all pairs block by block, and keeps the positive ones and the highest negative ones."""
  relevance = judge_relevance(query, gallery)
  ranked = np.concatenate([relevance.queried, relevance.others])
  known = np.unique(np.concatenate([[0], query.identity, gallery.identity[ranked]]))
  of_query, of_gallery = (np.searchsorted(known, ids) for ids in (query.identity, gallery.identity[ranked]))
  num_own = int(relevance.is_match.sum() + relevance.is_junk.sum())
  num_negative = len(query) * len(ranked) - num_own
  num_kept = min(num_negative, max(MIN_TAIL, math.ceil(TAIL_MARGIN * largest_rate * num_negative)))
  positive, person = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
  negative, people = np.zeros(0, np.float32), np.zeros((2, 0), np.int64)
  rows = max(1, SCORE_BLOCK_BYTES // (8 * max(1, len(ranked))))
  columns = gallery.features[ranked].T
  for start in range(0, len(query), rows):
    block = slice(start, start + rows)
    scores = (query.features[block] @ columns).astype(np.float32)
    row, place = np.nonzero(relevance.is_match[block])
    positive.append(scores[row, relevance.own[block][row, place]])
    person.append(of_query[block][row])
    row, place = np.nonzero(relevance.is_match[block] | relevance.is_junk[block])
    scores[row, relevance.own[block][row, place]] = -np.inf
    lowest = negative.min() if len(negative) == num_kept and num_kept else -np.inf
    row, column = np.nonzero(scores > lowest)
    negative = np.concatenate([negative, scores[row, column]])
    people = np.concatenate([people, np.stack([of_query[block][row], of_gallery[column]])], axis=1)
    if len(negative) > num_kept:
      best = np.argpartition(-negative, num_kept - 1)[:num_kept]
      negative, people = negative[best], people[:, best]
  order = np.argsort(-negative, kind='stable')
  counts = [np.bincount(ids, minlength=len(known)) for ids in (of_query, of_gallery)]
  return _Pairs(
    np.concatenate(positive), np.concatenate(person), negative[order], people[:, order], num_negative, *counts
  )


def _draws(pairs: _Pairs, seed: int) -> list[npt.NDArray[np.float64]]:
  """Returns how often each person was drawn: `ROUNDS` arrays f64[I]; rounds without pairs of one kind are left out."""
  rng = np.random.default_rng(seed)
  present = 1 + np.flatnonzero((pairs.query_counts + pairs.gallery_counts)[1:])
  draws = []
  for _ in range(ROUNDS):
    weight = np.zeros(len(pairs.query_counts))
    np.add.at(weight, rng.choice(present, len(present)), 1)
    weight[0] = 1
    if weight[pairs.person].any() and _negative_weight(pairs, weight) > 0:
      draws.append(weight)
  return draws or [np.ones(len(pairs.query_counts))]


def _negative_weight(pairs: _Pairs, weight: npt.NDArray[np.float64]) -> float:
  """Returns the weight of all pairs of two people."""
  of_query, of_gallery = weight * pairs.query_counts, weight * pairs.gallery_counts
  return float(of_query.sum() * of_gallery.sum() - of_query @ of_gallery)


def _threshold(pairs: _Pairs, weight: npt.NDArray[np.float64], rate: float) -> tuple[float, float]:
  """Returns the threshold and the true-positive rate if people have these weights."""
  scores = pairs.negative
  counted = np.cumsum(weight[pairs.people[0]] * weight[pairs.people[1]])
  allowed = rate * _negative_weight(pairs, weight) * (1 + 1e-12)  # 0.1 x 30 pairs are 3
  num_accepted = int(np.searchsorted(counted, allowed, 'right'))
  if num_accepted == len(scores):
    score = float(scores[-1])
  elif num_accepted and scores[num_accepted - 1] > scores[num_accepted]:
    score = (float(scores[num_accepted - 1]) + float(scores[num_accepted])) / 2
  else:
    score = float(np.nextafter(scores[num_accepted], np.float32(np.inf)))
  of_positive = weight[pairs.person]
  return score, float(of_positive[pairs.positive >= score].sum() / of_positive.sum())
