"""Convolutions as the networks need them: without padding, of a doubled map, and of a very small one.

`upsampled_convolution` is nearest-neighbour doubling followed by a 5x5 convolution, computed on the small map with 9
taps instead of 25. A doubled map repeats every value, so taps that fall on one value can be added beforehand. Along one
axis, with taps w0..w4, the outputs at 2j and 2j + 1 are

    (w0 + w1) x[j-1] + (w2 + w3) x[j] +        w4 x[j+1]
           w0 x[j-1] + (w1 + w2) x[j] + (w3 + w4) x[j+1]

that is, one 3x3 convolution to four times the channels, interleaved. Reflect padding of the doubled map equals edge
padding of the small one but for the outermost value that it shows to the outermost output: x[1] instead of x[0]. Those
lines of the output are corrected by what the difference makes.
"""

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.types import Array

_MERGED_TAPS = np.array(  # [parity of the output, tap of the small map, tap of the kernel]
  [
    [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
    [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
  ]
)


def upsampled_convolution(x: Array, kernel: Array, padding: str = 'reflect') -> Array:
  """The padded convolution of the doubled map.

  Args:
    x: f[N, h, w, C], h and w at least 2.
    kernel: f[5, 5, C, O].
    padding: reflect or zero.

  Returns:
    f[N, 2h, 2w, O]: `conv(pad(repeat(x, 2), 2), kernel)` up to rounding.
  """
  rows, columns, features = 2 * x.shape[1], 2 * x.shape[2], kernel.shape[-1]
  small = _merged_kernel(kernel)
  if padding == 'zero':  # a margin of doubled zeros is a doubled margin of zeros
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  else:
    padded = _edge_padded(_edge_padded(x, 1, 1), 2, 1)
  phases = unpadded_convolution(padded, small).reshape(-1, rows // 2, columns // 2, 2, 2, features)
  convolved = phases.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, features)
  if padding == 'zero':
    return convolved

  # First the outermost rows as edge padding shows their columns, then the outermost columns of the true map.
  rows_off = jnp.stack([x[:, 1] - x[:, 0], x[:, -2] - x[:, -1]], axis=1)
  columns_off = jnp.stack([x[:, :, 1] - x[:, :, 0], x[:, :, -2] - x[:, :, -1]], axis=1)
  correction = _outermost(_lines(rows_off, kernel[0::4], 'edge'), 1, rows)
  return (
    convolved
    + correction
    + _outermost(_lines(columns_off, kernel[:, 0::4].swapaxes(0, 1), 'reflect').swapaxes(1, 2), 2, columns)
  )


def unpadded_convolution(x: Array, kernel: Array, stride: int = 1, dilation: int = 1) -> Array:
  """Convolution of f[N, H, W, C] with f[k, k, C, O] without padding."""
  width = (x.shape[2] - dilation * (kernel.shape[1] - 1) - 1) // stride + 1
  # What is not compiled with `compilation.CPU_OPTIONS`, such as the drawing of images, is 2 to 5 times slower without
  # padding on CPU: give it a column to pad, and cut that.
  spare = 1 if kernel.shape[1] > 1 and jax.default_backend() == 'cpu' else 0
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((0, 0), (0, spare)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )[:, :, :width]


def small_map_convolution(
  lhs: Array,
  rhs: Array,
  window_strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  *,
  lhs_dilation: Sequence[int] = (1, 1),
  rhs_dilation: Sequence[int] = (1, 1),
  feature_group_count: int = 1,
  **settings: Any,
) -> Array:
  """`jax.lax.conv_general_dilated` for `nn.Conv`, NHWC, with a short cut on CPU.

  Where there are fewer outputs than taps, XLA makes the map the kernel and the kernel the map, and its CPU code for
  that is 25 times slower than the one matrix product it is here (48 maps of 4x2, 3x3, 128 channels: 46 ms and 1.8).
  The last stage of a ResNet has such maps of images of 64x32.

  Args:
    lhs: f[N, H, W, C].
    rhs: f[k, l, C, O].
    window_strides: down and right.
    padding: before and after, down and right.
    lhs_dilation: with any but 1 there is no short cut.
    rhs_dilation: the same.
    feature_group_count: the same.
    settings: all else that lax takes.

  Returns:
    f[N, h, w, O].
  """
  kernel_sizes = rhs.shape[:2]
  sizes = [
    (size + sum(margins) - kernel_size) // stride + 1
    for size, margins, kernel_size, stride in zip(lhs.shape[1:3], padding, kernel_sizes, window_strides, strict=True)
  ]
  is_plain = feature_group_count == 1 and {*lhs_dilation, *rhs_dilation} == {1}
  if jax.default_backend() != 'cpu' or not is_plain or math.prod(sizes) >= math.prod(kernel_sizes):
    return jax.lax.conv_general_dilated(
      lhs,
      rhs,
      window_strides,
      padding,
      lhs_dilation=lhs_dilation,
      rhs_dilation=rhs_dilation,
      feature_group_count=feature_group_count,
      **settings,
    )
  padded = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
  (height, width), (down, right) = sizes, window_strides
  taps = [
    padded[:, i : i + down * (height - 1) + 1 : down, j : j + right * (width - 1) + 1 : right]
    for i in range(kernel_sizes[0])
    for j in range(kernel_sizes[1])
  ]
  return jnp.concatenate(taps, axis=-1) @ rhs.reshape(-1, rhs.shape[-1])


def _merged_kernel(kernel: Array) -> Array:
  """f[5, 5, C, O] -> f[3, 3, C, 4 O], the four outputs at (even, even), (even, odd), (odd, even), (odd, odd)."""
  merged = _MERGED_TAPS.astype(kernel.dtype)
  phases = jnp.einsum('aik,bjl,klco->ijcabo', merged, merged, kernel, precision='highest')
  return phases.reshape(3, 3, kernel.shape[2], -1)


def _lines(x: Array, kernel: Array, padding: str) -> Array:
  """Doubles and convolves two lines, each with taps of its own: f[N, 2, l, C], f[2, 5, C, O] -> f[N, 2, 2l, O]."""
  doubled = jnp.repeat(x, 2, axis=2)
  length = doubled.shape[2]
  if padding == 'edge':
    doubled = _edge_padded(doubled, 2, 2)
  else:
    doubled = jnp.pad(doubled, ((0, 0), (0, 0), (2, 2), (0, 0)), mode='reflect')
  patches = jnp.stack([doubled[:, :, tap : tap + length] for tap in range(5)], axis=3)
  return jnp.einsum('nsltc,stco->nslo', patches, kernel)


def _edge_padded(x: Array, axis: int, margin: int) -> Array:
  """Repeats the first and the last value along an axis `margin` times."""
  first, last = jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, -1, None, axis=axis)
  return jnp.concatenate([first] * margin + [x] + [last] * margin, axis=axis)


def _outermost(lines: Array, axis: int, size: int) -> Array:
  """Two lines at the ends of an otherwise empty axis of `size`."""
  first, last = jnp.split(lines, 2, axis=axis)
  between = jnp.zeros((*lines.shape[:axis], size - 2, *lines.shape[axis + 1 :]), lines.dtype)
  # Not lax.pad with interior padding: its partitioning exchanges whole lines between devices.
  return jnp.concatenate([first, between, last], axis=axis)
