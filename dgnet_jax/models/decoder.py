"""G: a structure code and an appearance code to an image (paper section 3; release facts 25 to 29)."""

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.layers import ConvLayer, ResidualBlock, fan_in_normal, leaky_relu
from dgnet_jax.types import Array


class Mlp(nn.Module):
  """Three linear layers with a leaky ReLU between them (release fact 29)."""

  width: int
  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i, features in enumerate((self.width, self.width, self.features)):
      x = nn.Dense(features, kernel_init=fan_in_normal, dtype=self.dtype, name=f'linear_{i}')(x)
      x = leaky_relu(x) if i < 2 else x
    return x


class Decoder(nn.Module):
  """Structure code f[N, h, w, C] and appearance code f[N, F] -> image f[N, 4h, 4w, 3], unbounded.

  The appearance code is cut in `num_res_blocks` equal runs, in its channel-major order; run j's two MLPs give block j
  its AdaIN scales and shifts.
  """

  num_res_blocks: int
  mlp_width: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, structure_code: Array, appearance_code: Array) -> Array:
    x = structure_code
    channels = x.shape[-1]
    for i, run in enumerate(jnp.split(appearance_code, self.num_res_blocks, axis=-1)):
      scale = Mlp(self.mlp_width, 2 * channels, dtype=self.dtype, name=f'adain_scale_{i}')(run)
      shift = Mlp(self.mlp_width, 2 * channels, dtype=self.dtype, name=f'adain_shift_{i}')(run)
      x = ResidualBlock(channels, norm='adaptive', dtype=self.dtype, name=f'block_{i}')(x, scale, shift)
    for i in range(2):
      channels //= 2
      x = ConvLayer(channels, 5, doubled=True, norm='layer', dtype=self.dtype, name=f'up_{i}')(x)
    for i in range(2):
      x = ConvLayer(channels, 3, dtype=self.dtype, name=f'refine_{i}')(x)
    return ConvLayer(3, 1, activation=False, dtype=self.dtype, name='to_rgb')(x)
