"""Colour error and pattern fidelity against values computed by hand."""

import numpy as np
import pytest

from dgnet_jax.evaluation.clothes_quality import MIN_PIXELS, colour_error, pattern_fidelity

SHAPE = (1, 12, 8, 3)
EVERYWHERE = np.ones(SHAPE[:3], bool)


def flat(value):
  return np.full(SHAPE, value, np.uint8)


@pytest.fixture
def garments():
  """Two garments: the upper and the lower half."""
  masks = np.zeros((1, 2, 12, 8), bool)
  masks[:, 0, :6] = masks[:, 1, 6:] = True
  return masks


def test_colour_error_of_known_colours(garments):
  """Black has lightness 0 and white 100; neither has a hue."""
  image = flat(0)
  image[:, 6:] = 255
  np.testing.assert_allclose(colour_error(image, flat(255), garments[:, :1]), 100, atol=0.01)
  np.testing.assert_allclose(colour_error(image, flat(255), garments), 50, atol=0.01)
  assert colour_error(flat(7), flat(7), garments) == 0
  # sRGB red is L 53.24, a 80.09, b 67.20.
  red = flat(0)
  red[..., 0] = 255
  np.testing.assert_allclose(colour_error(red, flat(0), garments), np.linalg.norm([53.24, 80.09, 67.20]), atol=0.02)


def test_colour_error_compares_mean_colours(garments):
  stripes = flat(0)
  stripes[:, ::2] = 255
  other = 255 - stripes
  np.testing.assert_allclose(colour_error(stripes, other, garments), 0, atol=1e-6)


def test_barely_visible_garments_are_left_out(garments):
  image = flat(0)
  image[:, 6:] = 255
  few = garments & (np.cumsum(garments, axis=-1) <= 1)  # a column of six pixels each
  assert few.sum() == 12 == MIN_PIXELS
  np.testing.assert_allclose(colour_error(image, flat(255), np.stack([garments[:, 0], few[:, 1]], 1)), 100, atol=0.01)
  assert np.isnan(colour_error(image, flat(255), few))
  few[:, 1, :6, 1] = True
  np.testing.assert_allclose(colour_error(image, flat(255), few), 50, atol=0.01)


@pytest.fixture
def top():
  """A plain top lit by 0..11 on grey, that light, and a pattern of 1 and -1 in two of the channels."""
  light = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None], (1, 1, 12, 8))
  plain = flat(100) + 4 * light[:, 0, ..., None]
  pattern = np.where(np.indices((12, 8)).sum(axis=0) % 3 == 0, 1, -1)[None, ..., None] * np.array([1, -1, 0])
  return plain, light, pattern


def fidelity(image, ground_truth, top, window=EVERYWHERE):
  return pattern_fidelity(image.astype(np.uint8), ground_truth.astype(np.uint8), top[0], top[1], window)[0]


def test_pattern_fidelity_of_known_contrasts(top):
  plain, _, pattern = top
  ground_truth = plain + 40 * pattern
  assert fidelity(ground_truth, ground_truth, top) == pytest.approx(1)
  assert fidelity(plain + 20 * pattern, ground_truth, top) == pytest.approx(0.8)  # 2 * 0.5 / (1 + 0.25)
  assert fidelity(plain - 40 * pattern, ground_truth, top) == pytest.approx(-1)
  # The same pattern on a lit top of another colour.
  assert fidelity(ground_truth // 2 * 2 - 2 * top[1][:, 0, ..., None] + 30, ground_truth, top) == pytest.approx(1)


def test_pattern_fidelity_of_plain_tops_is_zero(top):
  plain, light, pattern = top
  ground_truth = plain + 40 * pattern
  for value in (0, 90, 255):
    assert fidelity(flat(value), ground_truth, top) == 0
  mean = np.rint(ground_truth.mean(axis=(1, 2), keepdims=True)).astype(np.uint8)
  assert fidelity(np.broadcast_to(mean, SHAPE), ground_truth, top) == 0
  assert fidelity(plain, ground_truth, top) == pytest.approx(0, abs=1e-12)
  shaded = np.array([20, 90, 5]) + np.array([3, 0, 15]) * light[:, 0, ..., None]
  assert fidelity(shaded, ground_truth, top) == pytest.approx(0, abs=1e-12)


def test_noise_and_other_patterns_lower_pattern_fidelity(top):
  plain, _, pattern = top
  ground_truth, rng = plain + 40 * pattern, np.random.default_rng(0)
  noise = rng.integers(-40, 41, SHAPE)
  assert abs(fidelity(plain + noise, ground_truth, top)) < 0.25
  assert 0.5 < fidelity(ground_truth + noise, ground_truth, top) < 0.95
  assert abs(fidelity(plain + 40 * pattern[:, :, ::-1] * [1, 1, 0], ground_truth, top)) < 0.5


def test_pattern_fidelity_is_measured_in_the_window(top):
  plain, _, pattern = top
  ground_truth = plain + 40 * pattern
  window = EVERYWHERE.copy()
  window[:, :4] = False
  image = np.where(window[..., None], ground_truth, 255)
  assert fidelity(image, ground_truth, top, window) == pytest.approx(1)
  assert fidelity(image, ground_truth, top) < 0.99


def test_pattern_fidelity_is_nan_without_a_visible_pattern(top):
  plain, _, pattern = top
  ground_truth = plain + 40 * pattern
  assert np.isnan(fidelity(ground_truth, plain, top))
  assert np.isnan(fidelity(ground_truth, plain + 2 * pattern, top))
  few = np.zeros_like(EVERYWHERE)
  few[0, 0, :] = few[0, 1, :3] = True
  assert np.isnan(fidelity(ground_truth, ground_truth, top, few))
  few[0, 1, 3] = True
  assert fidelity(ground_truth, ground_truth, top, few) == pytest.approx(1)


def test_mismatched_images_and_masks_are_refused(top, garments):
  plain, light, _ = top
  with pytest.raises(ValueError, match='shape'):
    colour_error(plain, plain[:, :5], garments)
  with pytest.raises(ValueError, match='garments.shape'):
    colour_error(plain, plain, garments[:, 0])
  with pytest.raises(ValueError, match='garments.dtype'):
    colour_error(plain, plain, garments.astype(int))
  with pytest.raises(ValueError, match='dtype'):
    pattern_fidelity(plain / 255, plain, plain, light, EVERYWHERE)
  with pytest.raises(ValueError, match='window.shape'):
    pattern_fidelity(plain, plain, plain, light, EVERYWHERE[:, :5])
