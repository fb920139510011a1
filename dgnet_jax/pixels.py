"""Conversions between stored pixels (uint8) and what the networks see (normalised floats), and upsampling."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from dgnet_jax.types import Array

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])


def normalize(pixels: Any) -> Any:
  """Scales pixels to zero mean and unit variance over ImageNet.

  Args:
    pixels: u8[..., 3], a NumPy or a JAX array.

  Returns:
    f32[..., 3], of the same kind.
  """
  mean, std = IMAGENET_MEAN.astype(np.float32), IMAGENET_STD.astype(np.float32)
  return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def denormalize(image: Any, *, truncate: bool = False) -> Any:
  """Inverts `normalize`, clipping to 0..255.

  Args:
    image: f[..., 3], normalised, without NaN; a NumPy or a JAX array.
    truncate: drop the fraction instead of rounding. The release does, which darkens a quarter of the pixels by one
      (fact 40).

  Returns:
    u8[..., 3], of the same kind.
  """
  xp = image.__array_namespace__()
  pixels = xp.clip((image * IMAGENET_STD + IMAGENET_MEAN) * 255, 0, 255)
  return (xp.trunc(pixels) if truncate else xp.round(pixels)).astype(np.uint8)


def enlarge(image: Array, scale: int) -> Array:
  """Nearest-neighbour upsampling of [..., H, W, C] by the whole factor `scale`, to [..., scale * H, scale * W, C]."""
  if scale == 1:
    return image
  return jnp.repeat(jnp.repeat(image, scale, axis=-3), scale, axis=-2)
