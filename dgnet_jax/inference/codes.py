"""Structure and appearance codes, in another order or between two of them."""

import jax
import numpy as np

from dgnet_jax.data.lazy_images import ReorderedImages
from dgnet_jax.inference.predictor import Codes


def reordered(codes: Codes, index: np.ndarray) -> Codes:
  """Returns the rows that `index` names, i[N], without copying them at once."""
  return jax.tree.map(lambda leaf: ReorderedImages(leaf, index), codes)


def interpolated(codes: Codes, weight: np.ndarray) -> Codes:
  """Interpolates from the first to the last of one or two codes, exactly at the ends.

  Args:
    codes: one or two rows.
    weight: f32[N], shares of the last.

  Returns:
    Codes with the leading axis N.
  """

  def mixed(leaf: np.ndarray) -> np.ndarray:
    w = weight.reshape(-1, *[1] * (leaf.ndim - 1))
    result: np.ndarray = (1 - w) * leaf[0] + w * leaf[-1]
    return result

  return jax.tree.map(mixed, codes)
