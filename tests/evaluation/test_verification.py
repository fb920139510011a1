"""TPR@FPR against a loop over all pairs."""

import numpy as np
import pytest

from dgnet_jax.evaluation import verification
from dgnet_jax.evaluation.verification import true_positive_rates

RATES = (0.0, 0.01, 0.1, 0.5, 1.0)


def search(seed=0):
  draw = np.random.default_rng(seed)
  query, gallery = (draw.standard_normal((n, 8)).astype(np.float32) for n in (12, 90))
  return (query, draw.integers(1, 4, 12), draw.integers(0, 3, 12)), (
    gallery,
    draw.integers(-1, 4, 90),
    draw.integers(0, 3, 90),
  )


def by_definition(query, gallery, rate):
  right, wrong = [], []
  for x, person, camera in zip(*query, strict=True):
    for y, other, other_camera in zip(*gallery, strict=True):
      if other == -1 or (other == person and other_camera == camera):
        continue
      (right if other == person else wrong).append(x @ y)
  right, wrong = np.array(right), np.array(wrong)
  thresholds = np.append(np.unique(np.concatenate([right, wrong])), np.inf)
  return max((right >= t).mean() for t in thresholds if (wrong >= t).mean() <= rate)


@pytest.mark.parametrize('block_bytes', [1, 2**20])
def test_equals_the_definition(block_bytes, monkeypatch):
  monkeypatch.setattr(verification, 'SCORE_BLOCK_BYTES', block_bytes)
  query, gallery = search()
  rates = true_positive_rates(*query, *gallery, false_positive_rates=RATES)
  # Pairs of one bin stand or fall together: at most a few of some hundred.
  np.testing.assert_allclose(rates, [by_definition(query, gallery, rate) for rate in RATES], atol=0.01)
  assert rates[-1] == 1


def test_without_right_pairs_there_is_no_rate():
  query, gallery = search()
  gallery[1][:] = 9
  assert np.isnan(true_positive_rates(*query, *gallery, false_positive_rates=RATES)).all()
