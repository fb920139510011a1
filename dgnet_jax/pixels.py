"""Conversion between stored pixels (uint8) and normalized images (what the networks take), and upsampling."""

from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from dgnet_jax.types import Array

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])

AnyArray = TypeVar('AnyArray', npt.NDArray[Any], Array)


def normalize(pixels: AnyArray) -> AnyArray:
  """Normalizes pixels with ImageNet's mean and standard deviation.

  Args:
    pixels: u8[..., 3], a NumPy or JAX array.

  Returns:
    f32[..., 3], an array of the same library.
  """
  mean, std = IMAGENET_MEAN.astype(np.float32), IMAGENET_STD.astype(np.float32)
  return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def denormalize(image: AnyArray, *, truncate: bool = False) -> AnyArray:
  """Inverts `normalize`, clipping to [0, 255].

  Args:
    image: f[..., 3], normalized and without NaN; a NumPy or JAX array.
    truncate: drop the fraction instead of rounding. The release does so, which darkens a quarter of the pixels by one
      (release fact 40).

  Returns:
    u8[..., 3], an array of the same library.
  """
  xp: Any = image.__array_namespace__()
  pixels = xp.clip((image * IMAGENET_STD + IMAGENET_MEAN) * 255, 0, 255)
  return (xp.trunc(pixels) if truncate else xp.round(pixels)).astype(np.uint8)  # type: ignore[no-any-return]


def unit_range(image: Array) -> Array:
  """Inverts `normalize` up to the scale: normalized images f[..., 3] -> f[..., 3], black is 0 and white is 1."""
  return image * jnp.asarray(IMAGENET_STD, image.dtype) + jnp.asarray(IMAGENET_MEAN, image.dtype)


def clipped(image: Array) -> Array:
  """Clips normalized images f[..., 3] to what pixels can show."""
  black, white = -IMAGENET_MEAN / IMAGENET_STD, (1 - IMAGENET_MEAN) / IMAGENET_STD
  return jnp.clip(image, jnp.asarray(black, image.dtype), jnp.asarray(white, image.dtype))


def enlarge(image: Array, scale: int) -> Array:
  """Upsamples by an integer factor, nearest neighbour: f[..., H, W, C] -> f[..., scale * H, scale * W, C]."""
  if scale == 1:
    return image
  return jnp.repeat(jnp.repeat(image, scale, axis=-3), scale, axis=-2)
