"""Verification: are two images of one person? The share of right pairs accepted at given shares of wrong ones."""

from collections.abc import Sequence

import numpy as np

from dgnet_jax.evaluation.match_ranks import SCORE_BLOCK_BYTES, relate

BINS = 2**16  # scores are counted in bins of this share of their range


def true_positive_rates(
  query_embedding: np.ndarray,
  query_identity: np.ndarray,
  query_camera: np.ndarray,
  gallery_embedding: np.ndarray,
  gallery_identity: np.ndarray,
  gallery_camera: np.ndarray,
  *,
  false_positive_rates: Sequence[float],
) -> list[float]:
  """TPR@FPR over all pairs of a query and a gallery image that is no junk, scored by dot product.

  Scores are counted in 65,536 bins over their range, so memory does not grow with the pairs; pairs of one bin are
  accepted or refused together, which can only lower a rate.

  Args:
    query_embedding: f32[Q, D], already weighted by alpha.
    query_identity: i32[Q].
    query_camera: i32[Q].
    gallery_embedding: f32[G, D].
    gallery_identity: i32[G]; -1 junk, 0 distractor.
    gallery_camera: i32[G].
    false_positive_rates: largest shares of wrong pairs that may be accepted, in [0, 1].

  Returns:
    For each of them the share of right pairs that is accepted; NaN where there are no right or no wrong pairs.
  """
  relations = relate(query_identity, query_camera, gallery_identity, gallery_camera)
  ranked = np.concatenate([relations.near, relations.far])
  right, everything = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
  # No score is larger than the product of the largest lengths.
  bound = float(np.linalg.norm(query_embedding, axis=1).max() * np.linalg.norm(gallery_embedding, axis=1).max())
  scale = (BINS - 1) / (2 * bound) if bound else 0.0
  gallery = gallery_embedding[ranked].T
  rows = max(1, SCORE_BLOCK_BYTES // (8 * max(1, len(ranked))))
  for start in range(0, len(query_embedding), rows):
    block = slice(start, start + rows)
    bins = ((query_embedding[block] @ gallery + bound) * scale).astype(np.int64).clip(0, BINS - 1)
    own = np.take_along_axis(bins, relations.columns[block], axis=1)
    everything += np.bincount(bins.ravel(), minlength=BINS)
    everything -= np.bincount(own[relations.junk[block]], minlength=BINS)
    right += np.bincount(own[relations.match[block]], minlength=BINS)
  accepted_right, accepted_wrong = (np.cumsum(count[::-1])[::-1] for count in (right, everything - right))
  if not accepted_right[0] or not accepted_wrong[0]:
    return [float('nan')] * len(false_positive_rates)
  rates = []
  for rate in false_positive_rates:
    allowed = np.flatnonzero(accepted_wrong <= rate * accepted_wrong[0])  # accepting the bin and all above
    rates.append(float(accepted_right[allowed[0]] / accepted_right[0]) if len(allowed) else 0.0)
  return rates
