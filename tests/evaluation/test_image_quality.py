"""Image quality against hand-computed values."""

import numpy as np
import pytest

from dgnet_jax.evaluation import image_quality


@pytest.fixture
def images():
  return np.random.default_rng(0).integers(0, 256, (3, 24, 16, 3), dtype=np.uint8)


def test_psnr_of_a_known_error(images):
  ground_truth = images // 2
  image = ground_truth + np.uint8(10)
  np.testing.assert_allclose(image_quality.psnr(image, ground_truth), 10 * np.log10(255**2 / 100))


def test_equal_images_have_infinite_psnr_and_ssim_1(images):
  assert np.isposinf(image_quality.psnr(images, images)).all()
  np.testing.assert_allclose(image_quality.ssim(images, images), 1)


def test_ssim_of_constant_images():
  dark, light = np.full((1, 16, 16, 3), 50, np.uint8), np.full((1, 16, 16, 3), 100, np.uint8)
  c1 = (0.01 * 255) ** 2  # without texture only the luminance term remains
  np.testing.assert_allclose(image_quality.ssim(dark, light), (2 * 50 * 100 + c1) / (50**2 + 100**2 + c1))


def test_ssim_of_noisy_images_is_above_that_of_other_images(images):
  noisy = np.clip(images.astype(int) + np.random.default_rng(1).integers(-20, 21, images.shape), 0, 255)
  assert (image_quality.ssim(noisy.astype(np.uint8), images) > image_quality.ssim(images[::-1], images)[0]).all()


def test_recolored_image_has_the_mean_colour_of_its_donor():
  rng = np.random.default_rng(0)
  structure = rng.integers(100, 150, (2, 12, 12, 3), dtype=np.uint8)
  appearance = rng.integers(60, 200, (2, 12, 12, 3), dtype=np.uint8)
  result = image_quality.recolored(structure, appearance)
  assert result.dtype == np.uint8
  np.testing.assert_allclose(result.mean(axis=(1, 2)), appearance.mean(axis=(1, 2)), atol=0.5)
  spread = np.ptp((result.astype(int) - structure).reshape(2, -1, 3), axis=1)
  assert (spread == 0).all()  # one shift per channel preserves the structure


def test_recolored_image_is_clipped(images):
  white = np.full_like(images, 255)
  assert image_quality.recolored(images, white).max() == 255


@pytest.mark.parametrize('measure', [image_quality.psnr, image_quality.ssim, image_quality.recolored])
def test_mismatched_images_are_refused(measure, images):
  with pytest.raises(ValueError, match='shape'):
    measure(images, images[:2])
  with pytest.raises(ValueError, match='dtype'):
    measure(images / 255, images)


def test_ssim_refuses_images_smaller_than_its_window(images):
  with pytest.raises(ValueError, match='window'):
    image_quality.ssim(images[:, :10], images[:, :10])
