"""Thresholds against a loop over all pairs, and their intervals against known distributions."""

import numpy as np
import pytest

from dgnet_jax.evaluation import calibration
from dgnet_jax.evaluation.calibration import calibrate
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.verification import accepted_rates


def people(num_people, per_person, noise, seed=0, size=16):
  """Queries and a gallery of the same people, by two cameras."""
  rng = np.random.default_rng(seed)
  centres = rng.standard_normal((num_people, size))

  def images(camera):
    identity = np.repeat(np.arange(1, num_people + 1), per_person)
    features = centres[identity - 1] + noise * rng.standard_normal((len(identity), size))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Embeddings(features.astype(np.float32), identity, np.full(len(identity), camera))

  return images(0), images(1)


def labelled(seed):
  """With junk, distractors, and gallery images by the query's camera."""
  draw = np.random.default_rng(seed)
  query, gallery = (draw.standard_normal((n, 8)).astype(np.float32) for n in (12, 90))
  return (
    Embeddings(query, draw.integers(1, 4, 12), draw.integers(0, 3, 12)),
    Embeddings(gallery, draw.integers(-1, 4, 90), draw.integers(0, 3, 90)),
  )


def all_pairs(query, gallery):
  """Scores of the pairs of one person and of two people."""
  positive, negative = [], []
  for x, identity, camera in zip(query.features, query.identity, query.camera, strict=True):
    for y, other, other_camera in zip(gallery.features, gallery.identity, gallery.camera, strict=True):
      if other != -1 and not (other == identity and other_camera == camera):
        (positive if other == identity else negative).append(float(x @ y))
  return np.array(positive), np.array(negative)


@pytest.mark.parametrize('block_bytes', [1, 2**20])
@pytest.mark.parametrize('tail', [1, 10_000])
def test_thresholds_equal_the_definition(monkeypatch, block_bytes, tail):
  monkeypatch.setattr(calibration, 'SCORE_BLOCK_BYTES', block_bytes)
  monkeypatch.setattr(calibration, 'MIN_TAIL', tail)
  for seed in range(3):
    query, gallery = labelled(seed)
    positive, negative = all_pairs(query, gallery)
    rates = (0.2, 0.01, 0.1)
    result = calibrate(query, gallery, false_positive_rates=rates)
    assert (result.num_positive_pairs, result.num_negative_pairs) == (len(positive), len(negative))
    assert [threshold.false_positive_rate for threshold in result.thresholds] == list(rates)
    for threshold in result.thresholds:
      allowed = threshold.false_positive_rate
      accepted = (negative >= threshold.score).mean()
      assert accepted <= allowed < accepted + 1 / len(negative) + 1e-9  # not one pair more would be allowed
      assert threshold.true_positive_rate == pytest.approx((positive >= threshold.score).mean())
      expected = threshold.true_positive_rate, accepted
      assert accepted_rates(query, gallery, score=threshold.score) == pytest.approx(expected)


def test_ties_are_not_accepted_beyond_the_rate():
  features = np.ones((4, 1), np.float32)
  query = Embeddings(features, np.array([1, 2, 3, 4]), np.zeros(4, int))
  gallery = Embeddings(features, np.array([1, 2, 3, 4]), np.ones(4, int))
  (threshold,) = calibrate(query, gallery, false_positive_rates=[0.5]).thresholds
  assert threshold.score > 1 and threshold.true_positive_rate == 0


def test_intervals_shrink_with_people_and_cover_the_estimate():
  few, many = (calibrate(*people(n, 3, 0.8), false_positive_rates=[0.01]).thresholds[0] for n in (12, 192))
  for threshold in (few, many):
    low, high = threshold.score_interval
    assert low <= threshold.score <= high
    low, high = threshold.true_positive_rate_interval
    assert low <= threshold.true_positive_rate <= high
  widths = [np.ptp(threshold.score_interval) for threshold in (few, many)]
  assert 0 < widths[1] < widths[0] / 2


def test_rates_that_cannot_be_seen_have_open_intervals():
  query, gallery = people(4, 2, 0.8)
  num_negative = calibrate(query, gallery, false_positive_rates=[0.5]).num_negative_pairs
  rates = [0.99 / num_negative, 1 / num_negative]
  hidden, seen = calibrate(query, gallery, false_positive_rates=rates).thresholds
  assert hidden.score_interval[0] <= hidden.score and hidden.score_interval[1] is None
  assert hidden.true_positive_rate_interval[0] is None and hidden.true_positive_rate_interval[1] is not None
  assert None not in (*seen.score_interval, *seen.true_positive_rate_interval)


def test_the_interval_covers_repetitions():
  """It is as wide as thresholds from other draws of people vary, or wider: up to three times here, where what two
  people have in common is all noise, which drawing both anew exaggerates.
  """
  (one,) = calibrate(*people(40, 3, 0.8, seed=0), false_positive_rates=[0.01]).thresholds
  width = np.ptp(one.score_interval)
  others = []
  for seed in range(1, 41):
    _, negative = all_pairs(*people(40, 3, 0.8, seed=seed))
    others.append(np.quantile(negative, 0.99))
  assert 1 < width / (np.percentile(others, 97.5) - np.percentile(others, 2.5)) < 4


def test_resampling_does_not_depend_on_the_run():
  query, gallery = people(10, 2, 0.8)
  first, second = (calibrate(query, gallery, false_positive_rates=[0.05]) for _ in range(2))
  assert first == second


def test_missing_pairs_are_an_error():
  query, gallery = people(1, 2, 0.5)
  with pytest.raises(ValueError, match='0 negative pairs'):
    calibrate(query, gallery, false_positive_rates=[0.1])
  with pytest.raises(ValueError, match=r'not in \(0, 1\)'):
    calibrate(query, gallery, false_positive_rates=[0.1, 1])
