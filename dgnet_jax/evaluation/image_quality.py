"""Measures how close generated images are to the ground truth, and provides two trivial baselines.

Ground truth exists for the built-in pedestrians: the appearance donor's clothes in the structure donor's pose.
"""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

PIXEL_RANGE = 255
SSIM_WINDOW = 11  # pixels; scikit-image's window for sigma 1.5


def _check(image: Pixels, ground_truth: Pixels) -> None:
  if image.shape != ground_truth.shape or image.ndim != 4 or not image.dtype == ground_truth.dtype == np.uint8:
    raise ValueError(
      f'{image.shape=} {image.dtype=} {ground_truth.shape=} {ground_truth.dtype=}; expected equal u8[N, H, W, C]'
    )


def psnr(image: Pixels, ground_truth: Pixels) -> Doubles:
  """Computes the peak signal-to-noise ratio of each image, over all its pixels and channels.

  Args:
    image: u8[N, H, W, C].
    ground_truth: u8[N, H, W, C].

  Returns:
    f64[N] in dB; infinite where the images are equal.

  Raises:
    ValueError: shapes or dtypes differ.
  """
  from skimage.metrics import peak_signal_noise_ratio

  _check(image, ground_truth)

  def of_pair(image: Pixels, ground_truth: Pixels) -> float:
    if np.array_equal(image, ground_truth):
      return np.inf
    return float(peak_signal_noise_ratio(ground_truth, image, data_range=PIXEL_RANGE))  # type: ignore[no-untyped-call]

  return np.array([of_pair(*pair) for pair in zip(image, ground_truth, strict=True)])


def ssim(image: Pixels, ground_truth: Pixels) -> Doubles:
  """Computes the structural similarity of each image (Wang et al., 2004) with a Gaussian window of sigma 1.5.

  Averaged over pixels and channels.

  Args:
    image: u8[N, H, W, C], at least 11 pixels high and wide.
    ground_truth: u8[N, H, W, C].

  Returns:
    f64[N], at most 1.

  Raises:
    ValueError: shapes or dtypes differ, or the images are smaller than the window.
  """
  from skimage.metrics import structural_similarity

  _check(image, ground_truth)
  if min(image.shape[1:3]) < SSIM_WINDOW:
    raise ValueError(f'{image.shape=} is smaller than the {SSIM_WINDOW}x{SSIM_WINDOW} window')
  options = {'channel_axis': -1, 'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}

  def of_pair(image: Pixels, ground_truth: Pixels) -> float:
    value = structural_similarity(ground_truth, image, data_range=PIXEL_RANGE, **options)  # type: ignore[no-untyped-call]
    return float(value)

  return np.array([of_pair(*pair) for pair in zip(image, ground_truth, strict=True)])


def recolored(structure: Pixels, appearance: Pixels) -> Pixels:
  """Shifts each structure image to the mean colour of its appearance donor.

  Args:
    structure: u8[N, H, W, 3].
    appearance: u8[N, H, W, 3].

  Returns:
    u8[N, H, W, 3]; every channel has the donor's mean, up to clipping and rounding.

  Raises:
    ValueError: shapes or dtypes differ.
  """
  _check(structure, appearance)
  shift = appearance.mean(axis=(1, 2), keepdims=True) - structure.mean(axis=(1, 2), keepdims=True)
  shifted: Pixels = np.clip(np.rint(structure + shift), 0, PIXEL_RANGE).astype(np.uint8)
  return shifted


def trivial_baselines(structure: Pixels, appearance: Pixels) -> dict[str, Pixels]:
  """What any cross image must beat: the structure image itself, and the same image in the donor's mean colour."""
  return {'structure': structure, 'recolored': recolored(structure, appearance)}
