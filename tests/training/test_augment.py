"""Flip, crop and random erasing, against models of the release in plain Python."""

import functools
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.data_schema import AugmentConfig
from dgnet_jax.pixels import denormalize, normalize
from dgnet_jax.sharding import batch_sharding, make_mesh
from dgnet_jax.training.augment import augment_pairs, augment_singles, flip_and_crop, random_erasing
from dgnet_jax.types import PixelBatch
from tests.training.key_record import record_keys

H, W = 24, 12
erase = jax.jit(random_erasing, static_argnums=2)
pairs = jax.jit(augment_pairs, static_argnames=('config', 'reid_scale'))
singles = jax.jit(augment_singles, static_argnames=('config', 'erasing_prob', 'reid_scale'))
move = jax.jit(flip_and_crop, static_argnames=('flip_prob', 'crop_padding'))


def make_pixels(*leading):
  return np.random.default_rng(0).integers(0, 256, (*leading, H, W, 3), np.uint8)


def make_pairs(batch):
  both = make_pixels(batch, 4)
  return PixelBatch(both[:, :2], both[:, 2:], np.arange(2 * batch, dtype=np.int32).reshape(batch, 2))


def crops(image, padding):
  """Returns (flip, top, left) by the bytes of the image that they lead to."""
  parameters = {}
  for flip in (False, True):
    flipped = image[:, ::-1] if flip else image
    padded = np.pad(flipped, ((padding, padding), (padding, padding), (0, 0)), mode='edge')
    for top in range(2 * padding + 1):
      for left in range(2 * padding + 1):
        parameters[padded[top : top + H, left : left + W].tobytes()] = flip, top, left
  return parameters


def test_flip_and_crop_draws_every_window_equally_often():
  image, padding, count = make_pixels(), 2, 5000
  pixels = jnp.broadcast_to(image, (count, *image.shape))
  moved = np.asarray(move(pixels, jax.random.key(0), flip_prob=0.25, crop_padding=padding))
  parameters = crops(image, padding)
  flips, tops, lefts = np.array([parameters[x.tobytes()] for x in moved]).T
  assert abs(flips.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / count)
  joint = np.bincount(tops * 5 + lefts, minlength=25)
  assert np.square(joint - count / 25).sum() / (count / 25) < 55  # chi-square, 24 degrees of freedom, p = 0.0003


def test_without_flip_and_padding_images_do_not_change():
  pixels = make_pixels(4)
  key = jax.random.key(0)
  assert np.array_equal(move(pixels, key, flip_prob=0, crop_padding=0), pixels)
  assert np.array_equal(move(pixels, key, flip_prob=1, crop_padding=0), pixels[:, :, ::-1])


def model_rectangle(rng, prob, height, width):
  """Fact 39: (top, left, rows, columns), or None if nothing is erased."""
  if rng.uniform(0, 1) > prob:
    return None
  for _ in range(100):
    area, aspect = rng.uniform(0.02, 0.4) * height * width, rng.uniform(0.3, 1 / 0.3)
    rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if columns < width and rows < height:
      return rng.randint(0, height - rows), rng.randint(0, width - columns), rows, columns
  return None


def rectangle_of(mask):
  """Returns (top, left, rows, columns) of the True part of a mask, which must be a rectangle; None if it is empty."""
  if not mask.any():
    return None
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  assert mask.sum() == len(rows) * len(columns) == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
  return rows[0], columns[0], len(rows), len(columns)


def largest_cdf_gap(a, b):
  """Two-sample Kolmogorov-Smirnov statistic."""
  values = np.unique(np.concatenate([a, b]))
  cdf_a, cdf_b = (np.searchsorted(np.sort(x), values, side='right') / len(x) for x in (a, b))
  return np.abs(cdf_a - cdf_b).max()


@pytest.mark.parametrize('height_width', [(32, 16), (24, 24)])
def test_random_erasing_has_the_release_distribution(height_width):
  count, prob = 6000, 0.7
  erased = erase(jnp.ones((count, *height_width, 1)), jax.random.key(1), prob)
  ours = [rectangle_of(mask) for mask in np.asarray(erased)[..., 0] == 0]
  rng = random.Random(7)
  model = [model_rectangle(rng, prob, *height_width) for _ in range(count)]
  difference = np.mean([r is not None for r in ours]) - np.mean([r is not None for r in model])
  assert abs(difference) < 4 * math.sqrt(2 * prob * (1 - prob) / count)
  ours, model = (np.array([r for r in x if r is not None]) for x in (ours, model))
  bound = 1.95 * math.sqrt(1 / len(ours) + 1 / len(model))  # p = 0.001
  statistics = {
    'top': lambda r: r[:, 0],
    'left': lambda r: r[:, 1],
    'rows': lambda r: r[:, 2],
    'columns': lambda r: r[:, 3],
    'area': lambda r: r[:, 2] * r[:, 3],
    'aspect': lambda r: r[:, 2] / r[:, 3],
    'below': lambda r: height_width[0] - r[:, 0] - r[:, 2],
    'right': lambda r: height_width[1] - r[:, 1] - r[:, 3],
  }
  assert {name: gap for name, f in statistics.items() if (gap := largest_cdf_gap(f(ours), f(model))) > bound} == {}


def test_random_erasing_sets_pixels_to_zero_and_is_off_at_probability_zero():
  images = 1.0 + make_pixels(64)
  erased = erase(images, jax.random.key(1), 1.0)
  assert np.all((erased == images) | (erased == 0))
  assert np.all(np.any(np.asarray(erased) == 0, axis=(1, 2, 3)))
  assert random_erasing(images, jax.random.key(1), 0.0) is images


def test_image_too_small_for_any_rectangle_does_not_change():
  images = jnp.ones((16, 1, 40, 3))
  assert np.all(np.asarray(erase(images, jax.random.key(1), 1.0)) == 1)


@pytest.mark.parametrize('scale', [1, 2])
def test_augmented_pairs(scale):
  pixels = make_pairs(4)
  augment = functools.partial(pairs, config=AugmentConfig(), reid_scale=scale)
  batch = augment(pixels, jax.random.key(3))
  again, other = augment(pixels, jax.random.key(3)), augment(pixels, jax.random.key(4))
  assert batch.image.shape == batch.positive.shape == (4, 2, H, W, 3)
  assert batch.erased_image.shape == batch.erased_positive.shape == (4, 2, scale * H, scale * W, 3)
  assert {x.dtype for x in (batch.image, batch.positive, batch.erased_image, batch.erased_positive)} == {
    np.dtype(np.float32)
  }
  np.testing.assert_array_equal(batch.identity, pixels.identity)
  jax.tree.map(np.testing.assert_array_equal, batch, again)
  assert not np.array_equal(batch.image, other.image)
  # The re-id network sees the same crop, enlarged and partly erased.
  for image, erased in ((batch.image, batch.erased_image), (batch.positive, batch.erased_positive)):
    large = np.repeat(np.repeat(image, scale, axis=2), scale, axis=3)
    assert np.all((erased == large) | (np.asarray(erased) == 0))


def test_images_positives_and_streams_are_augmented_independently():
  image = make_pixels()
  same = np.broadcast_to(image, (300, 2, *image.shape))
  pixels = PixelBatch(same, same, np.zeros((300, 2), np.int32))
  batch = pairs(pixels, jax.random.key(0), AugmentConfig(crop_padding=2), 1)
  parameters, moved = crops(image, 2), denormalize(np.concatenate([batch.image, batch.positive], axis=1))
  drawn = [parameters[x.tobytes()] for x in moved.reshape(-1, H, W, 3)]
  correlation = np.corrcoef(np.array(drawn).reshape(300, 12).T)
  assert np.abs(correlation - np.eye(12)).max() < 0.25


def test_augmented_singles():
  images, key = make_pixels(6), jax.random.key(0)
  augmented = singles(images, key, AugmentConfig(), 0.5, 2)
  assert augmented.shape == (6, 2 * H, 2 * W, 3) and augmented.dtype == np.float32
  plain = singles(images, key, AugmentConfig(flip_prob=0.0, crop_padding=0), 0.0, 1)
  np.testing.assert_allclose(plain, normalize(images), atol=1e-6)


def test_eight_devices_give_the_same_images_and_exchange_nothing():
  pixels, rest = make_pairs(8), (jax.random.key(0), AugmentConfig(), 2)
  one = pairs(pixels, *rest)
  split = jax.device_put(pixels, batch_sharding(make_mesh()))
  eight = pairs(split, *rest)
  jax.tree.map(np.testing.assert_array_equal, one, eight)
  assert len(eight.erased_image.sharding.device_set) == jax.device_count()
  program = pairs.lower(split, *rest).compile().as_text()
  assert not [word for word in ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute') if word in program]


def test_every_key_is_used_once(monkeypatch):
  """Images and the ground truth of cross images get independent draws."""
  pixels, used = make_pairs(2), record_keys(monkeypatch)
  augment_pairs(pixels.replace(cross_ground_truth=pixels.image), jax.random.key(0), AugmentConfig(), 1)
  assert len(used) > 10 and len(set(used)) == len(used)
