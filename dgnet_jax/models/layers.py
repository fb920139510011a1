"""Convolution layers and residual blocks, shared by the generator and the discriminator.

Maps are f[N, H, W, C]. Layers compute in `dtype`; None means the dtype of their input and parameters, so that float64
inputs give float64 outputs. Statistics are computed in float32 or wider.
"""

from collections.abc import Callable

import flax.linen as nn
from flax.linen.dtypes import promote_dtype
import jax.numpy as jnp

from dgnet_jax.models.convolutions import unpadded_convolution, upsampled_convolution
from dgnet_jax.models.non_local import NonLocalBlock
from dgnet_jax.models.norms import (
  Activation,
  BatchStatisticsNorm,
  LayerNorm,
  adaptive_instance_norm,
  instance_norm,
)
from dgnet_jax.types import Array

Initializer = nn.initializers.Initializer
fan_in_normal = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')  # Kaiming, gain sqrt 2: release fact 34
fan_out_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

TRAINABLE_NORMS: dict[str, type[nn.Module]] = {'layer': LayerNorm, 'batch': BatchStatisticsNorm}
# Functions of a layer's input, its convolution, and the AdaIN parameters. With series and parallel, AdaIN is a residual
# adapter of the convolution (Rebuffi et al., arXiv 1705.08045 and 1803.10082), and the sum is normalized (inferred from
# the goldens).
ADAPTIVE_NORMS: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
  'adaptive': lambda x, y, scale, shift: adaptive_instance_norm(y, scale, shift),
  'series': lambda x, y, scale, shift: instance_norm(y + adaptive_instance_norm(y, scale, shift)),
  'parallel': lambda x, y, scale, shift: instance_norm(y + adaptive_instance_norm(x, scale, shift)),
}


class _Convolution(nn.Module):
  """The padded convolution of a ConvLayer, with bias."""

  features: int
  kernel_size: int
  stride: int
  dilation: int
  upsampled: bool
  padding: str
  kernel_init: Initializer
  dtype: jnp.dtype | None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    size = self.kernel_size
    kernel = self.param('kernel', self.kernel_init, (size, size, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    arrays: list[Array] = promote_dtype(x, kernel, bias, dtype=self.dtype)
    x, kernel, bias = arrays
    if self.upsampled:
      return upsampled_convolution(x, kernel, self.padding) + bias
    if margin := self.dilation * (size - 1) // 2:
      mode = {'reflect': 'reflect', 'zero': 'constant'}[self.padding]
      x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode=mode)
    return unpadded_convolution(x, kernel, self.stride, self.dilation) + bias


class ConvLayer(nn.Module):
  """Padding, convolution with bias, normalization, activation, in the release's order (release fact 23).

  Attributes:
    upsampled: convolve the map after upsampling it by 2 (nearest neighbour); 5x5 kernels only.
    norm: none, instance, layer, batch or one of `ADAPTIVE_NORMS`, whose parameters `scale` and `shift` f[N, features]
      are passed to the call; or f[A N, features], A for each map, which is convolved only once.
    activation: as in `Activation`.
    padding: reflect or zero.
  """

  features: int
  kernel_size: int
  stride: int = 1
  dilation: int = 1
  upsampled: bool = False
  norm: str = 'none'
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  kernel_init: Initializer = fan_in_normal
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
    y = _Convolution(
      features=self.features,
      kernel_size=self.kernel_size,
      stride=self.stride,
      dilation=self.dilation,
      upsampled=self.upsampled,
      padding=self.padding,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      name='conv',
    )(x)
    if scale is not None:
      x, y = (_repeated(map_, scale.shape[0]) for map_ in (x, y))
    if self.norm == 'instance':
      y = instance_norm(y)
    elif self.norm in TRAINABLE_NORMS:
      y = TRAINABLE_NORMS[self.norm](name='norm')(y)
    elif self.norm in ADAPTIVE_NORMS:
      if scale is None or shift is None:
        raise ValueError(f'norm {self.norm!r} needs scale and shift')
      y = ADAPTIVE_NORMS[self.norm](x, y, scale, shift)
    elif self.norm != 'none':
      choices = 'none', 'instance', *TRAINABLE_NORMS, *ADAPTIVE_NORMS
      raise ValueError(f'norm {self.norm!r}: must be one of {", ".join(choices)}')
    return Activation(self.activation, name='activation')(y)


class ResidualBlock(nn.Module):
  """Two 3x3 layers added to the input, without activation after the sum (release fact 23).

  With an adaptive norm, `scale` and `shift` f[N, 2 * features] hold the first layer's parameters, then the second's; or
  f[A N, 2 * features], for A outputs from each map.

  Attributes:
    norm: as in `ConvLayer`; for both layers.
    activation: activation of the first layer; the second has none.
    padding: reflect or zero.
    non_local: apply a non-local block to the sum.
  """

  features: int
  norm: str = 'none'
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  non_local: bool = False
  kernel_init: Initializer = fan_in_normal
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
    residual = x
    for i in range(2):
      part = slice(i * self.features, (i + 1) * self.features)
      layer = ConvLayer(
        self.features,
        3,
        norm=self.norm,
        activation=self.activation if i == 0 else 'none',
        padding=self.padding,
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        name=f'conv_{i}',
      )
      x = layer(x, None if scale is None else scale[:, part], None if shift is None else shift[:, part])
    x = _repeated(residual, x.shape[0]) + x
    return NonLocalBlock(self.kernel_init, self.dtype, name='non_local')(x) if self.non_local else x


def _repeated(x: Array, count: int) -> Array:
  """Repeats each map of f[N, ...] count / N times: f[count, ...]."""
  return x if x.shape[0] == count else jnp.repeat(x, count // x.shape[0], axis=0)
