"""E_s: a grey image to the structure code (paper section 3; release facts 22 to 24)."""

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
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    # Only the layers that feed a dilated one are activated (read off the goldens' traces).
    def layer(name, kernel_size, dilation=1, features=self.features // 2, activation=False):
      return ConvLayer(
        features,
        kernel_size,
        dilation=dilation,
        norm='instance',
        activation=activation,
        dtype=self.dtype,
        name=name,
      )

    branches = [layer('point', 1)(x)]
    for i, dilation in enumerate(self.dilations):
      branches.append(layer(f'dilated_{i}', 3, dilation)(layer(f'dilated_{i}_point', 1, activation=True)(x)))
    return layer('fuse', 1, features=2 * self.features)(jnp.concatenate(branches, -1))


class StructureEncoder(nn.Module):
  """Grey image f[N, H, W, 1] -> structure code f[N, H/4, W/4, 8 * width], zero mean and unit variance per channel."""

  width: int
  num_res_blocks: int
  dilations: tuple[int, ...]
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, gray: Array) -> Array:
    x = gray
    for i, (factor, stride) in enumerate(((1, 2), (2, 1), (2, 1), (4, 2))):
      x = ConvLayer(factor * self.width, 3, stride, norm='instance', dtype=self.dtype, name=f'down_{i}')(x)
    for i in range(self.num_res_blocks):
      x = ResidualBlock(4 * self.width, norm='instance', dtype=self.dtype, name=f'block_{i}')(x)
    return AtrousPyramid(4 * self.width, self.dilations, dtype=self.dtype, name='pyramid')(x)
