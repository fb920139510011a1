"""Measures how well a generated image reproduces the clothes: their colours, and the pattern of the top.

The ground truth must include the position of each garment, as that of the built-in pedestrians does.
"""

import numpy as np
import numpy.typing as npt

from dgnet_jax.evaluation.image_quality import Doubles, Pixels

Mask = npt.NDArray[np.bool_]

MIN_PIXELS = 12  # a garment that shows fewer pixels is not measured
MIN_CONTRAST = 3.0  # grey levels: the smallest root mean square of a pattern that counts as visible


def colour_error(image: Pixels, ground_truth: Pixels, garments: Mask) -> Doubles:
  """Computes the distance in CIELAB between the garments' mean colours and the true ones.

  For each garment the Lab values (illuminant D65) of both images are averaged over the garment's pixels. The error is
  the Euclidean distance of the two means (dE of CIE 1976: 2 is barely visible, black and white are 100 apart),
  averaged over the garments.

  Args:
    image: u8[N, H, W, 3], RGB.
    ground_truth: u8[N, H, W, 3], RGB.
    garments: bool[N, G, H, W], where each garment is in the ground truth. Those with fewer than `MIN_PIXELS` pixels
      are left out.

  Returns:
    f64[N], at least 0; NaN where every garment is left out.

  Raises:
    ValueError: shapes or dtypes do not fit.
  """
  from skimage.color import rgb2lab

  _check(image, ground_truth)
  if garments.ndim != 4 or garments[:, 0].shape != ground_truth.shape[:3] or garments.dtype != bool:
    raise ValueError(f'{garments.shape=} {garments.dtype=}; expected bool[N, G, H, W] for {ground_truth.shape=}')
  errors = np.full(len(image), np.nan)
  for i, masks in enumerate(garments):
    masks = [mask for mask in masks if mask.sum() >= MIN_PIXELS]
    if masks:
      difference = rgb2lab(image[i]) - rgb2lab(ground_truth[i])
      errors[i] = np.mean([np.linalg.norm(difference[mask].mean(axis=0)) for mask in masks])
  return errors


def pattern_fidelity(image: Pixels, ground_truth: Pixels, plain: Pixels, light: Pixels, window: Mask) -> Doubles:
  """Measures how much of the true pattern an image shows: 1 for the ground truth, 0 for any plain top.

  From both images, within the window and for each colour channel, everything that a plain top can look like is removed
  by least squares: a constant, the ground truth with a plain top, and the light on each part of the top (a plain top of
  another colour is the plain image plus a multiple of that light). With the residuals g of the image and t of the
  ground truth over all pixels and channels, the fidelity is

    2 <g, t> / (<g, g> + <t, t>)

  which is the contrast and structure term of SSIM (Wang et al., 2004) with one window. Half the contrast scores 0.8,
  another pattern or noise about 0, the inverted pattern -1.

  The window must leave out sleeves that have no pattern: their colour differs from a pattern's mean colour, so that
  body and sleeves in two plain colours would score about 0.5.

  Args:
    image: u8[N, H, W, 3].
    ground_truth: u8[N, H, W, 3].
    plain: u8[N, H, W, 3], the ground truth with a plain top.
    light: u8[N, K, H, W], what each of K parts of the top, all of one colour, adds to the image.
    window: bool[N, H, W], where a pattern can be.

  Returns:
    f64[N], in [-1, 1]; NaN where the window has fewer than `MIN_PIXELS` pixels or the true pattern is not visible: its
    contrast (root mean square of t) is below `MIN_CONTRAST`.

  Raises:
    ValueError: shapes or dtypes do not fit.
  """
  _check(image, ground_truth)
  _check(plain, ground_truth)
  shape = ground_truth.shape[:3]
  if light.ndim != 4 or light[:, 0].shape != shape or window.shape != shape or window.dtype != bool:
    raise ValueError(f'{light.shape=} {window.shape=} {window.dtype=} do not fit {ground_truth.shape=}')
  fidelity = np.full(len(image), np.nan)
  for i in np.flatnonzero(window.sum(axis=(1, 2)) >= MIN_PIXELS):
    mask = window[i]
    plain_looks = plain[i][mask].astype(float), light[i][:, mask].T.astype(float)
    true = _residual(ground_truth[i][mask].astype(float), *plain_looks)
    if true @ true >= len(true) * MIN_CONTRAST**2:
      generated = _residual(image[i][mask].astype(float), *plain_looks)
      fidelity[i] = 2 * generated @ true / (generated @ generated + true @ true)
  return fidelity


def _check(image: Pixels, ground_truth: Pixels) -> None:
  fits = image.shape == ground_truth.shape and image.ndim == 4 and image.shape[-1] == 3
  if not (fits and image.dtype == ground_truth.dtype == np.uint8):
    raise ValueError(
      f'{image.shape=} {image.dtype=} {ground_truth.shape=} {ground_truth.dtype=}; expected equal u8[N, H, W, 3]'
    )


def _residual(pixels: Doubles, plain: Doubles, light: Doubles) -> Doubles:
  """Returns f64[3 * P]: the P pixels f64[P, 3] without the part that a plain top explains."""
  rest: Doubles = pixels - pixels.mean(axis=0)  # exactly zero for pixels of one colour
  for channel in range(3):
    looks = np.column_stack([plain[:, channel], light])
    looks = looks - looks.mean(axis=0)
    rest[:, channel] -= looks @ np.linalg.lstsq(looks, rest[:, channel], rcond=None)[0]
  return rest.ravel()
