"""Blocks of scores: how queries and galleries of any size are compared part by part."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.evaluation.embeddings import Floats
from dgnet_jax.types import Array

LANES = 128  # galleries are padded to a multiple of it, so that few shapes compile


def block_scores(query: Array, gallery: Array) -> Array:
  """Computes the dot products f32[Q, G] of f32[Q, D] and f32[G, D]."""
  return jnp.matmul(query, gallery.T, precision=jax.lax.Precision.HIGHEST)


def round_up(count: int, multiple: int) -> int:
  """Returns the smallest multiple that is at least `count`."""
  return -(-count // multiple) * multiple


def slices(total: int, size: int) -> Iterator[slice]:
  """Yields adjacent slices of `total` rows, of `size` rows each but the last."""
  for start in range(0, total, size):
    yield slice(start, min(start + size, total))


def padded(rows: np.ndarray, size: int) -> np.ndarray:
  """Appends rows of zeros up to `size` rows."""
  padding = [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
  return np.pad(rows, padding) if size > len(rows) else rows


def gallery_part(features: Floats, index: np.ndarray, size: int) -> np.ndarray:
  """Returns f32[at least `size`, D]: the images at `index`, padded with NaN rows, whose scores are above none."""
  part = np.full((round_up(max(size, len(index)), LANES), features.shape[1]), np.nan, np.float32)
  part[: len(index)] = features[index]
  return part
