"""Verification: do two images show the same identity? True positive rates at given false positive rates."""

from collections.abc import Sequence

import numpy as np

from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.match_ranks import SCORE_BLOCK_BYTES, judge_relevance

BINS = 2**16  # histogram bins over the range of the scores


def true_positive_rates(
  query: Embeddings, gallery: Embeddings, *, false_positive_rates: Sequence[float]
) -> list[float]:
  """TPR@FPR over all pairs of a query and a gallery image, scored by dot product; junk is left out.

  Scores are counted in 65,536 bins over their range, so memory does not grow with the number of pairs. A threshold
  accepts all pairs of a bin or none, so a rate is never too high.

  Args:
    query: Q images, with features f[Q, D] already weighted by alpha.
    gallery: G images, with features f[G, D].
    false_positive_rates: the largest fractions of negative pairs that may be accepted, in [0, 1].

  Returns:
    The true positive rate at each of them; NaN if there are no positive or no negative pairs.
  """
  relevance = judge_relevance(query, gallery)
  ranked = np.concatenate([relevance.queried, relevance.others])
  positive, total = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
  # No score is larger than the product of the largest norms.
  bound = float(np.linalg.norm(query.features, axis=1).max() * np.linalg.norm(gallery.features, axis=1).max())
  scale = (BINS - 1) / (2 * bound) if bound else 0.0
  columns = gallery.features[ranked].T
  rows = max(1, SCORE_BLOCK_BYTES // (8 * max(1, len(ranked))))
  for start in range(0, len(query), rows):
    block = slice(start, start + rows)
    bins = ((query.features[block] @ columns + bound) * scale).astype(np.int64).clip(0, BINS - 1)
    own = np.take_along_axis(bins, relevance.own[block], axis=1)
    total += np.bincount(bins.ravel(), minlength=BINS)
    total -= np.bincount(own[relevance.is_junk[block]], minlength=BINS)
    positive += np.bincount(own[relevance.is_match[block]], minlength=BINS)
  # Pairs in each bin and all above it.
  true_positives, false_positives = (np.cumsum(count[::-1])[::-1] for count in (positive, total - positive))
  if not true_positives[0] or not false_positives[0]:
    return [float('nan')] * len(false_positive_rates)
  rates = []
  for rate in false_positive_rates:
    allowed = np.flatnonzero(false_positives <= rate * false_positives[0])
    rates.append(float(true_positives[allowed[0]] / true_positives[0]) if len(allowed) else 0.0)
  return rates
