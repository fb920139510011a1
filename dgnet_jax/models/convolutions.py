"""Convolutions that the networks need: of an upsampled map, without padding, and of a residual network.

`upsampled_convolution` upsamples by 2 (nearest neighbour) and applies a 5x5 kernel, but works on the small map, with 9
taps instead of 25. In the upsampled map every value is repeated, so taps that meet the same value can be summed first.
Along one axis, with taps w0 to w4, outputs 2j and 2j + 1 are

    (w0 + w1) x[j-1] + (w2 + w3) x[j] +        w4 x[j+1]
           w0 x[j-1] + (w1 + w2) x[j] + (w3 + w4) x[j+1]

which is a 3x3 convolution with four times the output channels, interleaved. Reflect padding of the upsampled map equals
edge padding of the small map, except that the outermost output sees x[1] where edge padding shows x[0]. The outermost
rows and columns of the output are corrected for that difference.

Some convolutions have a faster form on CPU. They are chosen by `jax.lax.platform_dependent` (`by_platform`), not by the
host's backend, so that a program exported for several platforms gets the right form on each.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.models.plain_operations import by_platform
from dgnet_jax.types import Array

_MERGED_TAPS = np.array(  # [parity of the output, tap on the small map, tap of the kernel]
  [
    [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
    [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
  ]
)
_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# Settings of `jax.lax.conv_general_dilated` for which a convolution is a matrix product of any precision.
_PLAIN_SETTINGS: dict[str, Any] = {
  'lhs_dilation': (1, 1),
  'rhs_dilation': (1, 1),
  'feature_group_count': 1,
  'batch_group_count': 1,
}


def upsampled_convolution(x: Array, kernel: Array, padding: str = 'reflect') -> Array:
  """Convolves the padded map after upsampling it by 2.

  Args:
    x: f[N, h, w, C], h and w at least 2.
    kernel: f[5, 5, C, O].
    padding: reflect or zero.

  Returns:
    f[N, 2h, 2w, O]: `conv(pad(repeat(x, 2), 2), kernel)` up to rounding.

  Raises:
    ValueError: `padding` is neither.
  """
  if padding not in ('reflect', 'zero'):
    raise ValueError(f'{padding=} must be reflect or zero')
  rows, columns, features = 2 * x.shape[1], 2 * x.shape[2], kernel.shape[-1]
  merged = _merged_kernel(kernel)
  if padding == 'zero':  # a margin of 2 zeros around the upsampled map is a margin of 1 around the small one
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  else:
    padded = _edge_padded(_edge_padded(x, 1, 1), 2, 1)
  phases = unpadded_convolution(padded, merged).reshape(-1, rows // 2, columns // 2, 2, 2, features)
  convolved = phases.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, features)
  if padding == 'zero':
    return convolved

  # The rows are corrected as if columns were edge padded, then the columns with the true padding of rows.
  row_error = jnp.stack([x[:, 1] - x[:, 0], x[:, -2] - x[:, -1]], axis=1)
  column_error = jnp.stack([x[:, :, 1] - x[:, :, 0], x[:, :, -2] - x[:, :, -1]], axis=1)
  row_correction = _convolved_lines(row_error, kernel[0::4], 'edge')
  column_correction = _convolved_lines(column_error, kernel[:, 0::4].swapaxes(0, 1), 'reflect').swapaxes(1, 2)
  return convolved + _at_ends(row_correction, 1, rows) + _at_ends(column_correction, 2, columns)


def unpadded_convolution(x: Array, kernel: Array, stride: int = 1, dilation: int = 1) -> Array:
  """Convolves without padding.

  Args:
    x: f[N, H, W, C].
    kernel: f[k, l, C, O].
    stride: stride along both axes.
    dilation: dilation of the kernel along both axes.

  Returns:
    f[N, h, w, O].
  """
  width = (x.shape[2] - dilation * (kernel.shape[1] - 1) - 1) // stride + 1

  def convolve(x: Array, kernel: Array, *, spare_columns: int) -> Array:
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      ((0, 0), (0, spare_columns)),
      rhs_dilation=(dilation, dilation),
      dimension_numbers=_DIMENSIONS,
    )[:, :, :width]

  plain = functools.partial(convolve, spare_columns=0)
  if kernel.shape[:2] == (1, 1):
    multiply = functools.partial(_product, strides=(stride, stride))
    return by_platform(x, kernel, cpu=multiply, default=plain)
  if kernel.shape[1] == 1:
    return plain(x, kernel)
  # On CPU, with XLA's default options, a convolution is 2 to 5 times slower without padding: pad a column and drop it.
  padded = functools.partial(convolve, spare_columns=1)
  return by_platform(x, kernel, cpu=padded, default=plain)


def residual_convolution(
  lhs: Array,
  rhs: Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  **settings: Any,
) -> Array:
  """`jax.lax.conv_general_dilated` for `nn.Conv`; on CPU a matrix product for a 1x1 kernel or a very small map.

  With fewer outputs than taps, XLA swaps the roles of map and kernel, and its CPU code for that is 25 times slower than
  one matrix product (48 maps of 4x2, 3x3 kernel, 128 channels: 46 ms and 1.8 ms). With images of 64x32, the last stage
  of a ResNet has such maps. With a 1x1 kernel, its gradient is faster as a matrix product (see `_product`).

  Args:
    lhs: f[N, H, W, C].
    rhs: f[k, l, C, O].
    window_strides: down and right.
    padding: before and after, down and right; or a name, as lax takes it.
    **settings: other arguments of lax. The matrix product honors `precision`; dilation, groups and every other
      non-default setting give a convolution.

  Returns:
    f[N, h, w, O].
  """

  def convolve(lhs: Array, rhs: Array) -> Array:
    return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **settings)

  if isinstance(padding, str) or not _is_plain(lhs, rhs, settings):
    return convolve(lhs, rhs)
  sizes = [
    (size + sum(margins) - kernel_size) // stride + 1
    for size, margins, kernel_size, stride in zip(lhs.shape[1:3], padding, rhs.shape[:2], window_strides, strict=True)
  ]
  num_taps = math.prod(rhs.shape[:2])
  if num_taps > 1 and math.prod(sizes) >= num_taps:
    return convolve(lhs, rhs)

  def multiply(lhs: Array, rhs: Array) -> Array:
    padded = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
    return _product(padded, rhs, strides=window_strides, precision=settings.get('precision'))

  return by_platform(lhs, rhs, cpu=multiply, default=convolve)


def _product(x: Array, kernel: Array, *, strides: Sequence[int], precision: Any = None) -> Array:
  """Convolves without padding, as one product of matrices with a row for each output and a column for each channel.

  Matrices, because XLA's CPU backend copies a map to transposed order to sum over several of its axes, as it does for
  the gradient of a convolution's kernel, and computes the map anew for that copy from what it is made of. In a step of
  `configs/market.py` those copies took a fifth of the time (docs/performance.md).

  Args:
    x: f[N, H, W, C].
    kernel: f[k, l, C, O].
    strides: down and right.
    precision: as in `jnp.matmul`.

  Returns:
    f[N, h, w, O].
  """
  rows, columns = kernel.shape[:2]
  down, right = strides
  height, width = (x.shape[1] - rows) // down + 1, (x.shape[2] - columns) // right + 1
  taps = [
    x[:, i : i + down * (height - 1) + 1 : down, j : j + right * (width - 1) + 1 : right]
    for i in range(rows)
    for j in range(columns)
  ]
  patches = jnp.concatenate(taps, axis=-1) if len(taps) > 1 else taps[0]
  matrix = patches.reshape(-1, rows * columns * x.shape[-1])
  product = jnp.matmul(matrix, kernel.reshape(-1, kernel.shape[-1]), precision=precision)
  return product.reshape(x.shape[0], height, width, -1)


def _is_plain(lhs: Array, rhs: Array, settings: dict[str, Any]) -> bool:
  """Returns True for a convolution in NHWC without dilation, groups or other non-default settings but `precision`."""
  dimensions = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, settings.get('dimension_numbers'))
  if dimensions != jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, _DIMENSIONS):
    return False
  others = {name: value for name, value in settings.items() if name not in ('dimension_numbers', 'precision')}
  return all(
    value is None or name in _PLAIN_SETTINGS and np.array_equal(value, _PLAIN_SETTINGS[name])
    for name, value in others.items()
  )


def _merged_kernel(kernel: Array) -> Array:
  """f[5, 5, C, O] -> f[3, 3, C, 4 O], the four outputs at (even, even), (even, odd), (odd, even), (odd, odd)."""
  merged = _MERGED_TAPS.astype(kernel.dtype)
  phases = jnp.einsum('aik,bjl,klco->ijcabo', merged, merged, kernel, precision='highest')
  return phases.reshape(3, 3, kernel.shape[2], -1)


def _convolved_lines(x: Array, kernel: Array, padding: str) -> Array:
  """Upsamples and convolves two lines, each with its own taps: f[N, 2, l, C], f[2, 5, C, O] -> f[N, 2, 2l, O]."""
  upsampled = jnp.repeat(x, 2, axis=2)
  length = upsampled.shape[2]
  if padding == 'edge':
    upsampled = _edge_padded(upsampled, 2, 2)
  else:
    upsampled = jnp.pad(upsampled, ((0, 0), (0, 0), (2, 2), (0, 0)), mode='reflect')
  patches = jnp.stack([upsampled[:, :, tap : tap + length] for tap in range(5)], axis=3)
  return jnp.einsum('nsltc,stco->nslo', patches, kernel)


def _edge_padded(x: Array, axis: int, margin: int) -> Array:
  """Pads an axis on both ends by repeating the outermost value `margin` times."""
  first, last = jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, -1, None, axis=axis)
  return jnp.concatenate([first] * margin + [x] + [last] * margin, axis=axis)


def _at_ends(lines: Array, axis: int, size: int) -> Array:
  """Places two lines at the ends of an axis of `size`, with zeros between them."""
  first, last = jnp.split(lines, 2, axis=axis)
  between = jnp.zeros((*lines.shape[:axis], size - 2, *lines.shape[axis + 1 :]), lines.dtype)
  # Not lax.pad with interior padding: partitioned, it exchanges entire lines between devices.
  return jnp.concatenate([first, between, last], axis=axis)
