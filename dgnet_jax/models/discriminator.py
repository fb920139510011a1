"""D, the discriminator: one PatchGAN per image scale (paper section 3; release fact 30), or one critic for wgan."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.layers import ConvLayer, ResidualBlock
from dgnet_jax.models.non_local import NonLocalBlock
from dgnet_jax.types import Array

patch_normal = nn.initializers.normal(0.02)  # release fact 34


class PatchDiscriminator(nn.Module):
  """Image f[N, H, W, 3] -> scores f[N, H/4, W/4].

  Attributes:
    norm: none (the release's default), instance, layer or batch.
    non_local: number of non-local blocks: 1 after the residual blocks, 2 before them as well.
  """

  width: int
  num_res_blocks: int
  norm: str = 'none'
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  non_local: int = 0
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array) -> Array:
    layer_options: dict[str, Any] = {
      'norm': self.norm,
      'activation': self.activation,
      'padding': self.padding,
      'kernel_init': patch_normal,
      'dtype': self.dtype,
    }
    x = image
    for i, (factor, kernel_size, stride) in enumerate(((1, 1, 1), (1, 3, 1), (1, 3, 2), (1, 3, 1), (2, 3, 2))):
      x = ConvLayer(factor * self.width, kernel_size, stride, name=f'conv_{i}', **layer_options)(x)
    if self.non_local > 1:
      x = NonLocalBlock(patch_normal, self.dtype, name='non_local_before')(x)
    for i in range(self.num_res_blocks):
      x = ResidualBlock(2 * self.width, name=f'block_{i}', **layer_options)(x)
    if self.non_local:
      x = NonLocalBlock(patch_normal, self.dtype, name='non_local_after')(x)
    x = ConvLayer(1, 1, activation='none', kernel_init=patch_normal, dtype=self.dtype, name='score')(x)
    return x[..., 0]


class Critic(nn.Module):
  """Image f[N, H, W, 3] -> one score f[N]: six layers of stride 2, and a linear layer over the last map."""

  width: int
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array) -> Array:
    x = image
    for i, factor in enumerate((1, 2, 4, 8, 16, 16)):
      layer = ConvLayer(
        factor * self.width,
        kernel_size=4,
        stride=2,
        activation=self.activation,
        padding=self.padding,
        kernel_init=patch_normal,
        dtype=self.dtype,
        name=f'conv_{i}',
      )
      x = layer(x)
    score = nn.Conv(1, x.shape[1:3], padding='VALID', kernel_init=patch_normal, dtype=self.dtype, name='score')(x)
    return score[:, 0, 0, 0]
