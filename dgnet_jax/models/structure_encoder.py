"""E_s: a grey image to the structure code (paper section 3; release facts 22 to 24)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.layers import ConvLayer, ResidualBlock
from dgnet_jax.types import Array


def to_gray(image: Array) -> Array:
  """The plain mean of the normalised channels, f[..., H, W, 3] -> f[..., H, W, 1] (release fact 22)."""
  return image.mean(-1, keepdims=True)


class AtrousPyramid(nn.Module):
  """ASPP: a 1x1 branch beside dilated 3x3 branches, concatenated and fused to twice the channels (release fact 24)."""

  features: int
  dilations: tuple[int, ...]
  activation: str
  padding: str
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    # Only the layers that feed a dilated one are activated (read off the goldens' traces).
    def layer(name, kernel_size, dilation=1, features=self.features // 2, activation='none'):
      return ConvLayer(
        features,
        kernel_size,
        dilation=dilation,
        norm='instance',
        activation=activation,
        padding=self.padding,
        dtype=self.dtype,
        name=name,
      )

    branches = [layer('point', 1)(x)]
    for i, dilation in enumerate(self.dilations):
      branches.append(layer(f'dilated_{i}', 3, dilation)(layer(f'dilated_{i}_point', 1, activation=self.activation)(x)))
    return layer('fuse', 1, features=2 * self.features)(jnp.concatenate(branches, -1))


class StructureEncoder(nn.Module):
  """Grey image f[N, H, W, 1] -> structure code f[N, H/4, W/4, 8 * width], zero mean and unit variance per channel.

  tanh: the code is squashed to -1..1 in the end.
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
    form: dict[str, Any] = {'activation': self.activation, 'padding': self.padding, 'dtype': self.dtype}
    x = gray
    for i, (factor, stride) in enumerate(((1, 2), (2, 1), (2, 1), (4, 2))):
      x = ConvLayer(factor * self.width, 3, stride, norm='instance', name=f'down_{i}', **form)(x)
    for i in range(self.num_res_blocks):
      block = ResidualBlock(
        4 * self.width, norm='instance', non_local=self.non_local_residual, name=f'block_{i}', **form
      )
      x = block(x)
    x = AtrousPyramid(4 * self.width, self.dilations, name='pyramid', **form)(x)
    return jnp.tanh(x) if self.tanh else x
