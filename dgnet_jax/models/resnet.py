"""ResNet of bottleneck blocks, as in torchvision: the stride sits in the 3x3 convolution (release fact 31)."""

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.convolutions import small_map_convolution
from dgnet_jax.models.layers import BatchNorm, BatchNormMode, fan_out_normal
from dgnet_jax.types import Array


class Bottleneck(nn.Module):
  """1x1 to `width`, 3x3, 1x1 to 4 * width, each with BatchNorm, added to the input or its projection."""

  width: int
  stride: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode) -> Array:
    def convolve(y, features, kernel_size, stride, name):
      margin = (kernel_size - 1) // 2
      return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=stride,
        padding=margin,
        use_bias=False,
        kernel_init=fan_out_normal,
        conv_general_dilated_cls=lambda: small_map_convolution,
        dtype=self.dtype,
        name=name,
      )(y)

    y = nn.relu(BatchNorm(name='norm_0')(convolve(x, self.width, 1, 1, 'conv_0'), mode))
    y = nn.relu(BatchNorm(name='norm_1')(convolve(y, self.width, 3, self.stride, 'conv_1'), mode))
    y = BatchNorm(name='norm_2')(convolve(y, 4 * self.width, 1, 1, 'conv_2'), mode)
    if self.stride != 1 or x.shape[-1] != 4 * self.width:
      x = BatchNorm(name='project_norm')(convolve(x, 4 * self.width, 1, self.stride, 'project'), mode)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Image f[N, H, W, 3] -> map f[N, H/16, W/16, 32 * width] with last_stride 1, half that size with 2."""

  stage_sizes: tuple[int, ...]
  width: int
  last_stride: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array, mode: BatchNormMode) -> Array:
    x = nn.Conv(
      self.width,
      (7, 7),
      strides=2,
      padding=3,
      use_bias=False,
      kernel_init=fan_out_normal,
      dtype=self.dtype,
      name='stem',
    )(image)
    x = nn.relu(BatchNorm(name='stem_norm')(x, mode))
    x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    last = len(self.stage_sizes) - 1
    for stage, num_blocks in enumerate(self.stage_sizes):
      first_stride = 1 if stage == 0 else self.last_stride if stage == last else 2
      for i in range(num_blocks):
        block = Bottleneck(
          self.width * 2**stage, first_stride if i == 0 else 1, self.dtype, name=f'stage_{stage}_block_{i}'
        )
        x = block(x, mode)
    return x
