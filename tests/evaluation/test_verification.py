"""TPR@FPR against a loop over all pairs."""

import numpy as np
import pytest

from dgnet_jax.evaluation import verification
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.verification import count_pairs, operating_points, true_positive_rates

RATES = (0.0, 0.01, 0.1, 0.5, 1.0)


def search(seed=0):
  draw = np.random.default_rng(seed)
  query, gallery = (draw.standard_normal((n, 8)).astype(np.float32) for n in (12, 90))
  return (
    Embeddings(query, draw.integers(1, 4, 12), draw.integers(0, 3, 12)),
    Embeddings(gallery, draw.integers(-1, 4, 90), draw.integers(0, 3, 90)),
  )


def by_definition(query, gallery, rate):
  positive, negative = [], []
  for x, identity, camera in zip(query.features, query.identity, query.camera, strict=True):
    for y, other, other_camera in zip(gallery.features, gallery.identity, gallery.camera, strict=True):
      if other == -1 or (other == identity and other_camera == camera):
        continue
      (positive if other == identity else negative).append(x @ y)
  positive, negative = np.array(positive), np.array(negative)
  thresholds = np.append(np.unique(np.concatenate([positive, negative])), np.inf)
  return max((positive >= t).mean() for t in thresholds if (negative >= t).mean() <= rate)


@pytest.mark.parametrize('block_bytes', [1, 2**20])
def test_rates_equal_the_definition(block_bytes, monkeypatch):
  monkeypatch.setattr(verification, 'SCORE_BLOCK_BYTES', block_bytes)
  query, gallery = search()
  rates = true_positive_rates(query, gallery, false_positive_rates=RATES)
  # A threshold accepts all pairs of a bin or none: a few of some hundred.
  np.testing.assert_allclose(rates, [by_definition(query, gallery, rate) for rate in RATES], atol=0.01)
  assert rates[-1] == 1


def test_rates_are_nan_without_positive_pairs():
  query, gallery = search()
  gallery.identity[:] = 9
  assert np.isnan(true_positive_rates(query, gallery, false_positive_rates=RATES)).all()


def test_thresholds_accept_what_they_say():
  query, gallery = search()
  scores = count_pairs(query, gallery)
  for point in operating_points(scores, false_positive_rates=(0.01, 0.1)):
    accepted = scores.edges[:-1] >= point.threshold
    assert scores.negative[accepted].sum() / scores.negative.sum() <= point.false_positive_rate
    assert scores.positive[accepted].sum() / scores.positive.sum() == pytest.approx(point.true_positive_rate)
    assert by_definition(query, gallery, point.false_positive_rate) == pytest.approx(point.true_positive_rate, abs=0.01)


def test_few_bins_hold_the_same_pairs():
  scores = count_pairs(*search())
  few = scores.histogram(20)
  assert len(few.positive) <= 20 and len(few.edges) == len(few.positive) + 1
  assert few.positive.sum() == scores.positive.sum() and few.negative.sum() == scores.negative.sum()
  np.testing.assert_allclose(np.diff(few.edges), few.edges[1] - few.edges[0])
  used = np.flatnonzero(scores.positive + scores.negative)
  assert few.edges[0] == scores.edges[used[0]] and few.edges[-1] > scores.edges[used[-1]]
  above = few.edges[:-1] >= few.edges[10]
  assert few.positive[above].sum() == scores.positive[scores.edges[:-1] >= few.edges[10]].sum()
