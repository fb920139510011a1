"""D: one PatchGAN per image scale (paper section 3; release fact 30)."""

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.layers import ConvLayer, ResidualBlock
from dgnet_jax.types import Array

patch_normal = nn.initializers.normal(0.02)  # release fact 34


def halve(image: Array) -> Array:
  """Average of 3x3 windows at stride 2; windows at the border count their own pixels only. f[N, H, W, C]."""
  return nn.avg_pool(image, (3, 3), (2, 2), padding=((1, 1), (1, 1)), count_include_pad=False)


class PatchDiscriminator(nn.Module):
  """Image f[N, H, W, 3] -> scores f[N, H/4, W/4]. No normalisation anywhere."""

  width: int
  num_res_blocks: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array) -> Array:
    x = image
    for i, (factor, kernel_size, stride) in enumerate(((1, 1, 1), (1, 3, 1), (1, 3, 2), (1, 3, 1), (2, 3, 2))):
      layer = ConvLayer(
        factor * self.width, kernel_size, stride, kernel_init=patch_normal, dtype=self.dtype, name=f'conv_{i}'
      )
      x = layer(x)
    for i in range(self.num_res_blocks):
      x = ResidualBlock(2 * self.width, kernel_init=patch_normal, dtype=self.dtype, name=f'block_{i}')(x)
    x = ConvLayer(1, 1, activation=False, kernel_init=patch_normal, dtype=self.dtype, name='score')(x)
    return x[..., 0]
