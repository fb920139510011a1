"""G, the decoder: structure code and appearance code to image (paper section 3; release facts 25 to 29)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.layers import ConvLayer, ResidualBlock, fan_in_normal
from dgnet_jax.models.non_local import NonLocalBlock
from dgnet_jax.models.norms import Activation, standardize
from dgnet_jax.types import Array


class Mlp(nn.Module):
  """Three linear layers with activations in between (release fact 29).

  Attributes:
    norm: none or instance, which normalizes the hidden units of each example before the activation.
  """

  width: int
  features: int
  activation: str
  norm: str
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(2):
      x = nn.Dense(self.width, kernel_init=fan_in_normal, dtype=self.dtype, name=f'linear_{i}')(x)
      x = standardize(x, (1,)) if self.norm == 'instance' else x
      x = Activation(self.activation, name=f'activation_{i}')(x)
    return nn.Dense(self.features, kernel_init=fan_in_normal, dtype=self.dtype, name='linear_2')(x)


class Decoder(nn.Module):
  """Structure code f[N, h, w, C] and appearance code f[N, F] -> image f[N, 4h, 4w, 3], unbounded.

  With f[A N, F], A appearances for each structure, there are A N images; what comes before the first AdaIN is computed
  once for each structure.

  The appearance code is split into `num_res_blocks` equal slices, in its channel-major order; two MLPs map slice j to
  the AdaIN scales and shifts of residual block j.

  Attributes:
    block: basic, series or parallel.
    non_local: number of non-local blocks: 1 after the residual blocks.
    non_local_residual: end every residual block with a non-local block.
  """

  num_res_blocks: int
  mlp_width: int
  block: str = 'basic'
  mlp_norm: str = 'none'
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  non_local: int = 0
  non_local_residual: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, structure_code: Array, appearance_code: Array) -> Array:
    layer_options: dict[str, Any] = {'activation': self.activation, 'padding': self.padding, 'dtype': self.dtype}
    x = structure_code
    channels = x.shape[-1]
    norm = {'basic': 'adaptive'}.get(self.block, self.block)

    def adain_parameters(name: str, code: Array) -> Array:
      return Mlp(self.mlp_width, 2 * channels, self.activation, self.mlp_norm, dtype=self.dtype, name=name)(code)

    for i, code in enumerate(jnp.split(appearance_code, self.num_res_blocks, axis=-1)):
      block = ResidualBlock(channels, norm=norm, non_local=self.non_local_residual, name=f'block_{i}', **layer_options)
      x = block(x, adain_parameters(f'adain_scale_{i}', code), adain_parameters(f'adain_shift_{i}', code))
    if self.non_local:
      x = NonLocalBlock(fan_in_normal, self.dtype, name='non_local')(x)
    for i in range(2):
      channels //= 2
      x = ConvLayer(channels, 5, upsampled=True, norm='layer', name=f'up_{i}', **layer_options)(x)
    for i in range(2):
      x = ConvLayer(channels, 3, name=f'refine_{i}', **layer_options)(x)
    return ConvLayer(3, 1, name='to_rgb', **(layer_options | {'activation': 'none'}))(x)
