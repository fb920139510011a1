"""How well the clothes of a generated image come out: their colours, and the pattern of the top.

Measured only where a true image and the places of the garments are known (the built-in pedestrians).
"""

from typing import Any

import numpy as np

from dgnet_jax.evaluation.image_quality import Pixels

Mask = np.ndarray[Any, np.dtype[np.bool_]]

MIN_PIXELS = 12  # of a garment; of one that shows less nothing is said
MIN_CONTRAST = 3.0  # grey levels, the root mean square of a pattern that counts as visible


def _check(image: Pixels, truth: Pixels) -> None:
  fits = image.shape == truth.shape and image.ndim == 4 and image.shape[-1] == 3
  if not (fits and image.dtype == truth.dtype == np.uint8):
    raise ValueError(f'{image.shape=} {image.dtype=} {truth.shape=} {truth.dtype=}; expected equal u8[N, H, W, 3]')


def colour_error(image: Pixels, truth: Pixels, garments: Mask) -> np.ndarray:
  """How far the garments' mean colours are from the true ones, in CIELAB.

  For each garment the Lab values (illuminant D65) of the image and of the truth are averaged over the garment's
  pixels; the error is the Euclidean distance of the two means (dE of CIE 1976: about 2 can just be seen, black and
  white are 100 apart), averaged over the garments.

  Args:
    image: u8[N, H, W, 3], RGB.
    truth: u8[N, H, W, 3], RGB.
    garments: bool[N, G, H, W], where each garment is in the truth. One of fewer than `MIN_PIXELS` does not count.

  Returns:
    f64[N], at least 0; NaN where no garment counts.

  Raises:
    ValueError: shapes or dtypes do not fit.
  """
  from skimage.color import rgb2lab

  _check(image, truth)
  if garments.ndim != 4 or garments[:, 0].shape != truth.shape[:3] or garments.dtype != bool:
    raise ValueError(f'{garments.shape=} {garments.dtype=}; expected bool[N, G, H, W] for {truth.shape=}')
  errors = np.full(len(image), np.nan)
  for i, masks in enumerate(garments):
    masks = [mask for mask in masks if mask.sum() >= MIN_PIXELS]
    if masks:
      difference = rgb2lab(image[i]) - rgb2lab(truth[i])
      errors[i] = np.mean([np.linalg.norm(difference[mask].mean(axis=0)) for mask in masks])
  return errors


def _pattern(pixels: np.ndarray, plain: np.ndarray, light: np.ndarray) -> np.ndarray:
  """What is left of P pixels f[P, 3] when all that a plain top can look like is taken out: f[3 * P]."""
  rest = pixels - pixels.mean(axis=0)  # of one colour nothing is left, exactly
  for channel in range(3):
    looks = np.column_stack([plain[:, channel], light])
    looks = looks - looks.mean(axis=0)
    rest[:, channel] -= looks @ np.linalg.lstsq(looks, rest[:, channel], rcond=None)[0]
  return rest.ravel()


def pattern_fidelity(image: Pixels, truth: Pixels, plain: Pixels, light: Pixels, window: Mask) -> np.ndarray:
  """How much of the true pattern an image shows: 1 for the truth, 0 for any plain top in its place.

  From image and truth, within the window and for each colour channel, all that a top without a pattern can look like
  is taken out by least squares: a constant, the true image with a plain top, and the light that falls on each part of
  the top (a plain top of another colour is the plain image plus a multiple of that light). With what is left, g of
  the image and t of the truth over all pixels and channels, the fidelity is

    2 <g, t> / (<g, g> + <t, t>)

  which is the contrast and structure of SSIM (Wang et al. 2004) with one window. Half the contrast scores 0.8, another
  pattern or noise about 0, the inverted pattern -1. A truth without a visible pattern has no fidelity.

  The window must leave the sleeves out where these have no pattern: body and sleeves in two flat colours would else
  score about 0.5, for a pattern's mean colour is not that of the sleeves.

  Args:
    image: u8[N, H, W, 3].
    truth: u8[N, H, W, 3].
    plain: u8[N, H, W, 3], the truth with a plain top.
    light: u8[N, K, H, W], what K parts of the top, each of one colour, add to the image.
    window: bool[N, H, W], where a pattern can be.

  Returns:
    f64[N], -1 to 1; NaN where the window has fewer than `MIN_PIXELS` or the true pattern's contrast (root mean square
    of t) is below `MIN_CONTRAST`.

  Raises:
    ValueError: shapes or dtypes do not fit.
  """
  _check(image, truth)
  _check(plain, truth)
  if light.ndim != 4 or light[:, 0].shape != truth.shape[:3] or window.shape != truth.shape[:3] or window.dtype != bool:
    raise ValueError(f'{light.shape=} {window.shape=} {window.dtype=} do not fit {truth.shape=}')
  fidelity = np.full(len(image), np.nan)
  for i in np.flatnonzero(window.sum(axis=(1, 2)) >= MIN_PIXELS):
    inside = window[i]
    looks = plain[i][inside].astype(float), light[i][:, inside].T.astype(float)
    true = _pattern(truth[i][inside].astype(float), *looks)
    if true @ true >= len(true) * MIN_CONTRAST**2:
      made = _pattern(image[i][inside].astype(float), *looks)
      fidelity[i] = 2 * made @ true / (made @ made + true @ true)
  return fidelity
