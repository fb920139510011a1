"""Canny's edge detector (Canny, 1986) in whole numbers, equal to OpenCV's to the pixel, inside a jitted step.

It does not stand in front of the step because the cross images, which the step makes, are encoded again.
"""

import functools

import jax
import jax.numpy as jnp

from dgnet_jax.pixels import denormalize
from dgnet_jax.types import Array

LOW, HIGH = 10, 200  # the release's thresholds, found by comparison with the goldens: units of |dx| + |dy|
LUMA = (9798, 19235, 3735)  # red, green, blue of ITU-R BT.601, in units of 2^-15
TANGENT = 13573  # tan(22.5 degrees), in units of 2^-15; tan(67.5 degrees) is 2 more


def _shifted(x: Array, down: int, right: int) -> Array:
  """`x[i + down, j + right]` of [N, H, W], 0 (or False) outside."""
  height, width = x.shape[1:]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))
  return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _gradients(gray: Array) -> tuple[Array, Array]:
  """Sobel derivatives along columns and along rows of i32[N, H, W], borders replicated."""
  padded = jnp.pad(gray, ((0, 0), (1, 1), (1, 1)), mode='edge')
  smooth_rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
  smooth_columns = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
  return smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2], smooth_columns[:, 2:] - smooth_columns[:, :-2]


def _ridges(dx: Array, dy: Array, magnitude: Array) -> Array:
  """bool[N, H, W]: pixels above `LOW` whose magnitude is largest along their gradient, in eighths of a turn."""
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
  """The ridges that touch `edges` through other ridges, diagonals included; bool[N, H, W]."""

  def grow(state):
    edges, _ = state
    columns = edges | _shifted(edges, 0, -1) | _shifted(edges, 0, 1)
    grown = ridges & (columns | _shifted(columns, -1, 0) | _shifted(columns, 1, 0))
    return grown, (grown != edges).any()

  return jax.lax.while_loop(lambda state: state[1], grow, (edges, edges.any()))[0]


def canny(gray: Array) -> Array:
  """Edges bool[N, H, W] of grey pixels u8[N, H, W]."""
  dx, dy = _gradients(gray.astype(jnp.int32))
  magnitude = jnp.abs(dx) + jnp.abs(dy)
  ridges = _ridges(dx, dy, magnitude)
  return _connected(ridges, ridges & (magnitude > HIGH))


def to_edges(image: Array) -> Array:
  """Edges of normalised images f[N, H, W, 3]: f[N, H, W, 1], 0.5 on an edge and -0.5 elsewhere; no gradient passes.

  The release truncates pixels, so rounding decides whether those of a real image are one lower (fact 40); in float32
  a hundredth of the edges may differ for it.
  """
  pixels = denormalize(jax.lax.stop_gradient(image), truncate=True).astype(jnp.int32)
  gray = ((pixels * jnp.array(LUMA, jnp.int32)).sum(-1) + (1 << 14)) >> 15
  return jnp.where(canny(gray), 0.5, -0.5).astype(image.dtype)[..., None]
