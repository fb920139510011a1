"""Canny's edge detector (Canny, 1986) in integer arithmetic; matches OpenCV's pixel for pixel, and can be jitted.

It is not part of the input pipeline, because the training step also encodes the cross images that it generates.
"""

import functools

import jax
import jax.numpy as jnp

from dgnet_jax.pixels import denormalize
from dgnet_jax.types import Array

LOW, HIGH = 10, 200  # the release's thresholds of |dx| + |dy|, inferred from the goldens
LUMA = (9798, 19235, 3735)  # red, green, blue of ITU-R BT.601, in units of 2^-15
TANGENT = 13573  # tan(22.5 degrees), in units of 2^-15; tan(67.5 degrees) is 2 more


def _shifted(x: Array, down: int, right: int) -> Array:
  """`x[:, i + down, j + right]` of [N, H, W] at every (i, j); 0 or False outside the image."""
  height, width = x.shape[1:]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))
  return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _gradients(gray: Array) -> tuple[Array, Array]:
  """Sobel derivatives (dx, dy) of i32[N, H, W], with replicated borders."""
  padded = jnp.pad(gray, ((0, 0), (1, 1), (1, 1)), mode='edge')
  smooth_rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
  smooth_columns = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
  return smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2], smooth_columns[:, 2:] - smooth_columns[:, :-2]


def _ridges(dx: Array, dy: Array, magnitude: Array) -> Array:
  """Returns the pixels above `LOW` whose magnitude is largest along the gradient, its direction rounded to 45 degrees.

  Args:
    dx: i32[N, H, W], derivative along columns.
    dy: i32[N, H, W], derivative along rows.
    magnitude: i32[N, H, W].

  Returns:
    bool[N, H, W].
  """
  at = functools.partial(_shifted, magnitude)
  x, y = jnp.abs(dx) * TANGENT, jnp.abs(dy) << 15
  flat, steep = y < x, y > x + (jnp.abs(dx) << 16)
  same_sign = (dx ^ dy) >= 0
  largest = jnp.where(
    flat,
    (magnitude > at(0, -1)) & (magnitude >= at(0, 1)),
    jnp.where(
      steep,
      (magnitude > at(-1, 0)) & (magnitude >= at(1, 0)),
      jnp.where(
        same_sign,
        (magnitude > at(-1, -1)) & (magnitude > at(1, 1)),
        (magnitude > at(-1, 1)) & (magnitude > at(1, -1)),
      ),
    ),
  )
  return largest & (magnitude > LOW)


def _connected(ridges: Array, edges: Array) -> Array:
  """Returns the pixels of `ridges` that are 8-connected to `edges` through other ridges; all bool[N, H, W]."""

  def grow(state: tuple[Array, Array]) -> tuple[Array, Array]:
    edges, _ = state
    columns = edges | _shifted(edges, 0, -1) | _shifted(edges, 0, 1)
    grown = ridges & (columns | _shifted(columns, -1, 0) | _shifted(columns, 1, 0))
    return grown, (grown != edges).any()

  return jax.lax.while_loop(lambda state: state[1], grow, (edges, edges.any()))[0]


def canny(gray: Array) -> Array:
  """Detects edges: gray pixels u8[N, H, W] -> bool[N, H, W]."""
  dx, dy = _gradients(gray.astype(jnp.int32))
  magnitude = jnp.abs(dx) + jnp.abs(dy)
  ridges = _ridges(dx, dy, magnitude)
  return _connected(ridges, ridges & (magnitude > HIGH))


def to_edges(image: Array) -> Array:
  """Detects edges in normalized images; no gradient passes.

  The release truncates pixel values, so a pixel of a real image may come out one lower depending on rounding (release
  fact 40). In float32 this changes about one edge in a hundred.

  Args:
    image: f[N, H, W, 3], normalized.

  Returns:
    f[N, H, W, 1], 0.5 on edges and -0.5 elsewhere.
  """
  pixels = denormalize(jax.lax.stop_gradient(image), truncate=True).astype(jnp.int32)
  gray = ((pixels * jnp.array(LUMA, jnp.int32)).sum(-1) + (1 << 14)) >> 15
  return jnp.where(canny(gray), 0.5, -0.5).astype(image.dtype)[..., None]
