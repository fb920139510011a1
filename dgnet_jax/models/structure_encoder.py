"""E_s, the structure encoder: gray image to structure code (paper section 3; release facts 22 to 24)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.layers import ConvLayer, ResidualBlock
from dgnet_jax.types import Array


def to_gray(image: Array) -> Array:
  """Averages the normalized channels, without weights: f[..., H, W, 3] -> f[..., H, W, 1] (release fact 22)."""
  return image.mean(-1, keepdims=True)


class AtrousPyramid(nn.Module):
  """ASPP: a 1x1 branch and dilated 3x3 branches, concatenated and fused to twice the channels (release fact 24)."""

  features: int
  dilations: tuple[int, ...]
  activation: str
  padding: str
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    layer_options: dict[str, Any] = {'norm': 'instance', 'padding': self.padding, 'dtype': self.dtype}
    # Only the layers in front of a dilated one have an activation (inferred from the goldens' traces).
    linear_options = layer_options | {'activation': 'none'}
    width = self.features // 2

    branches = [ConvLayer(width, 1, name='point', **linear_options)(x)]
    for i, dilation in enumerate(self.dilations):
      y = ConvLayer(width, 1, activation=self.activation, name=f'dilated_{i}_point', **layer_options)(x)
      branches.append(ConvLayer(width, 3, dilation=dilation, name=f'dilated_{i}', **linear_options)(y))
    return ConvLayer(2 * self.features, 1, name='fuse', **linear_options)(jnp.concatenate(branches, -1))


class StructureEncoder(nn.Module):
  """Gray image f[N, H, W, 1] -> structure code f[N, H/4, W/4, 8 * width], zero mean and unit variance per channel.

  Attributes:
    dilations: dilations of the branches of the final ASPP.
    non_local_residual: end every residual block with a non-local block.
    tanh: bound the code to (-1, 1).
  """

  width: int
  num_res_blocks: int
  dilations: tuple[int, ...]
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  non_local_residual: bool = False
  tanh: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, gray: Array) -> Array:
    layer_options: dict[str, Any] = {
      'norm': 'instance',
      'activation': self.activation,
      'padding': self.padding,
      'dtype': self.dtype,
    }
    x = gray
    for i, (factor, stride) in enumerate(((1, 2), (2, 1), (2, 1), (4, 2))):
      x = ConvLayer(factor * self.width, 3, stride, name=f'down_{i}', **layer_options)(x)
    for i in range(self.num_res_blocks):
      x = ResidualBlock(4 * self.width, non_local=self.non_local_residual, name=f'block_{i}', **layer_options)(x)
    x = AtrousPyramid(4 * self.width, self.dilations, self.activation, self.padding, dtype=self.dtype, name='pyramid')(
      x
    )
    return jnp.tanh(x) if self.tanh else x
