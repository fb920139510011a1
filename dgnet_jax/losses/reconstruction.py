"""Reconstruction error of images and codes."""

import math

import jax
import jax.numpy as jnp

from dgnet_jax.losses.reductions import mean_per_example
from dgnet_jax.types import Array, at_least_float32

_GAUSSIAN = tuple(math.exp(-((offset / 1.5) ** 2) / 2) for offset in range(-3, 4))
SSIM_WINDOW = tuple(value / sum(_GAUSSIAN) for value in _GAUSSIAN)  # along each axis
LUMINANCE_FLOOR, CONTRAST_FLOOR = 0.01**2, 0.03**2  # of the paper, for pixels in [0, 1]


def l1_error(prediction: Array, target: Array) -> Array:
  """Computes the mean absolute error of each example; no gradient reaches `target`.

  Paper: eq. 1, 2 and 5 (self, same-identity and code reconstruction).

  Args:
    prediction: f32[B, ...].
    target: f32[B, ...], same shape.

  Returns:
    f32[B], the mean over all axes but the first.

  Raises:
    ValueError: the shapes differ, or there is no batch axis.
  """
  if prediction.shape != target.shape or not prediction.ndim:
    raise ValueError(f'{prediction.shape=} {target.shape=}: must be equal and have a batch axis')
  return mean_per_example(jnp.abs(at_least_float32(prediction) - at_least_float32(jax.lax.stop_gradient(target))))


def structural_dissimilarity(prediction: Array, target: Array) -> Array:
  """Computes 1 - SSIM of each example (Wang et al., 2004), which punishes blur more than an L1 error does.

  The window is Gaussian with sigma 1.5, like that of the measure, but only 7x7 pixels large. It lies within the image.

  Args:
    prediction: f32[B, H, W, C], black is 0 and white is 1; at least 7 pixels high and wide.
    target: f32[B, H, W, C], the same; no gradient reaches it.

  Returns:
    f32[B] in [0, 2], the mean over windows and channels.

  Raises:
    ValueError: the shapes differ, or the images are smaller than the window.
  """
  if prediction.shape != target.shape or prediction.ndim != 4 or min(prediction.shape[1:3]) < len(SSIM_WINDOW):
    raise ValueError(f'{prediction.shape=} {target.shape=}: must be equal [B, H, W, C] and at least {len(SSIM_WINDOW)}')
  x, y = at_least_float32(prediction), at_least_float32(jax.lax.stop_gradient(target))
  mean_x, mean_y = _window_means(x), _window_means(y)
  variances = _window_means(x**2 + y**2) - mean_x**2 - mean_y**2
  covariance = _window_means(x * y) - mean_x * mean_y
  luminance = (2 * mean_x * mean_y + LUMINANCE_FLOOR) / (mean_x**2 + mean_y**2 + LUMINANCE_FLOOR)
  contrast = (2 * covariance + CONTRAST_FLOOR) / (variances + CONTRAST_FLOOR)
  return 1 - mean_per_example(luminance * contrast)


def _window_means(x: Array) -> Array:
  """f[B, H, W, C] -> f[B, H - 6, W - 6, C], means weighted by the window."""
  size = len(SSIM_WINDOW)
  height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
  rows = sum((weight * x[:, i : i + height] for i, weight in enumerate(SSIM_WINDOW)), jnp.zeros((), x.dtype))
  return sum((weight * rows[:, :, i : i + width] for i, weight in enumerate(SSIM_WINDOW)), jnp.zeros((), x.dtype))
