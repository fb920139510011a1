"""How close generated images come to the true ones, and what two trivial answers reach.

Measured only where a true image exists (the built-in pedestrians): the appearance donor's clothes in the structure
donor's pose.
"""

from typing import Any

import numpy as np

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

PIXEL_RANGE = 255
SSIM_WINDOW = 11  # pixels; what scikit-image takes for sigma 1.5


def _check(image: Pixels, truth: Pixels) -> None:
  if image.shape != truth.shape or image.ndim != 4 or not image.dtype == truth.dtype == np.uint8:
    raise ValueError(f'{image.shape=} {image.dtype=} {truth.shape=} {truth.dtype=}; expected equal u8[N, H, W, C]')


def psnr(image: Pixels, truth: Pixels) -> np.ndarray:
  """Peak signal-to-noise ratio of each image, over all its pixels and channels.

  Args:
    image: u8[N, H, W, C].
    truth: u8[N, H, W, C].

  Returns:
    f64[N], dB; infinite where the images are equal.

  Raises:
    ValueError: shapes or dtypes differ.
  """
  from skimage.metrics import peak_signal_noise_ratio

  _check(image, truth)
  return np.array(
    [
      np.inf if np.array_equal(a, b) else peak_signal_noise_ratio(b, a, data_range=PIXEL_RANGE)
      for a, b in zip(image, truth, strict=True)
    ]
  )


def ssim(image: Pixels, truth: Pixels) -> np.ndarray:
  """Structural similarity of each image, as Wang et al. (2004) define it: Gaussian window, sigma 1.5.

  The mean over pixels and channels.

  Args:
    image: u8[N, H, W, C], at least 11 pixels high and wide.
    truth: u8[N, H, W, C].

  Returns:
    f64[N], at most 1.

  Raises:
    ValueError: shapes or dtypes differ, or the images are smaller than the window.
  """
  from skimage.metrics import structural_similarity

  _check(image, truth)
  if min(image.shape[1:3]) < SSIM_WINDOW:
    raise ValueError(f'{image.shape=} is smaller than the window of {SSIM_WINDOW} pixels')
  options = {'channel_axis': -1, 'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}
  pairs = zip(image, truth, strict=True)
  return np.array([structural_similarity(b, a, data_range=PIXEL_RANGE, **options) for a, b in pairs])


def recolored(structure: Pixels, appearance: Pixels) -> Pixels:
  """The trivial answer with colour: each structure image, shifted to its donor's mean colour.

  Args:
    structure: u8[N, H, W, 3].
    appearance: u8[N, H, W, 3].

  Returns:
    u8[N, H, W, 3]; every channel has the donor's mean, up to clipping and rounding.
  """
  _check(structure, appearance)
  shift = appearance.mean(axis=(1, 2), keepdims=True) - structure.mean(axis=(1, 2), keepdims=True)
  return np.clip(np.rint(structure + shift), 0, PIXEL_RANGE).astype(np.uint8)


def trivial_answers(structure: Pixels, appearance: Pixels) -> dict[str, Pixels]:
  """What any cross image must beat: the structure image itself, and the same in the donor's mean colour."""
  return {'structure': structure, 'recolored': recolored(structure, appearance)}
