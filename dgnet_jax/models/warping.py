"""Moves pixels: bilinear sampling at given places, and blocks of pixels as channels.

A place is (row, column) in pixels; (0, 0) is the centre of the upper left pixel.
"""

import jax
import jax.numpy as jnp

from dgnet_jax.types import Array


def sample(image: Array, place: Array) -> Array:
  """Samples images bilinearly; places outside are moved to the nearest pixel.

  Args:
    image: f[N, H, W, C].
    place: f[N, h, w, 2], in pixels of `image`.

  Returns:
    f[N, h, w, C]. Gradients reach the image and the places.
  """
  count, height, width, channels = image.shape
  limit = jnp.array([height - 1, width - 1], place.dtype)
  place = jnp.clip(place, 0, limit)
  first = jnp.minimum(jnp.floor(jax.lax.stop_gradient(place)), jnp.maximum(limit - 1, 0))
  down, right = jnp.split((place - first).astype(image.dtype), 2, axis=-1)
  top, left = first[..., 0].astype(jnp.int32), first[..., 1].astype(jnp.int32)
  pixels = image.reshape(count, height * width, channels)

  def at(row: Array, column: Array) -> Array:
    index = (jnp.minimum(row, height - 1) * width + jnp.minimum(column, width - 1)).reshape(count, -1, 1)
    return jnp.take_along_axis(pixels, index, axis=1).reshape(*place.shape[:-1], channels)

  upper = at(top, left) * (1 - right) + at(top, left + 1) * right
  lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
  # Without the barrier, XLA's fusions on CPU compute the gathers once for each use.
  sampled: Array = jax.lax.optimization_barrier(upper * (1 - down) + lower * down)  # type: ignore[no-untyped-call]
  return sampled


def cell_centres(height: int, width: int, stride: int) -> Array:
  """Returns the places f[height, width, 2] of the centres of cells of `stride` x `stride` pixels."""
  rows, columns = (stride * jnp.arange(size) + (stride - 1) / 2 for size in (height, width))
  return jnp.stack(jnp.meshgrid(rows, columns, indexing='ij'), axis=-1)


def space_to_depth(x: Array, stride: int) -> Array:
  """Joins blocks of `stride` x `stride` pixels: f[N, H, W, C] -> f[N, H / stride, W / stride, stride^2 C]."""
  count, height, width, channels = x.shape
  blocks = x.reshape(count, height // stride, stride, width // stride, stride, channels)
  joined: Array = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // stride, width // stride, -1)
  return joined


def block_means(x: Array, stride: int) -> Array:
  """Averages blocks of `stride` x `stride` pixels: f[N, H, W, C] -> f[N, H / stride, W / stride, C]."""
  count, height, width, channels = x.shape
  means: Array = x.reshape(count, height // stride, stride, width // stride, stride, channels).mean((2, 4))
  return means


def repeated(x: Array, factor: int) -> Array:
  """Enlarges maps by repeating each value: f[N, h, w, C] -> f[N, factor h, factor w, C]."""
  return jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2) if factor > 1 else x


def stretched(x: Array, factor: int) -> Array:
  """Enlarges maps by linear interpolation between the centres of their cells.

  Beyond the outermost centres the values continue linearly, so that a map of places stays one.

  Args:
    x: f[N, h, w, C]; h and w at least 2 if the factor is above 1.
    factor: of height and width.

  Returns:
    f[N, factor h, factor w, C].
  """
  return x if factor == 1 else _stretched(_stretched(x, factor, 1), factor, 2)


def _stretched(x: Array, factor: int, axis: int) -> Array:
  """Interpolates linearly along an axis to `factor` times its size, with linear continuation at both ends."""
  size = x.shape[axis]
  position = (jnp.arange(factor * size) - (factor - 1) / 2) / factor
  first = jnp.clip(jnp.floor(position), 0, size - 2).astype(jnp.int32)
  share = (position - first).astype(x.dtype).reshape(*[-1 if i == axis else 1 for i in range(x.ndim)])
  return jnp.take(x, first, axis=axis) * (1 - share) + jnp.take(x, first + 1, axis=axis) * share
