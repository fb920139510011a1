"""ResNet of bottleneck blocks as in torchvision: the stride is in the 3x3 convolution (release fact 31).

With instance norms it is IBN-Net a (Pan et al. 2018, arXiv 1807.09441).
"""

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.batch_norm import BatchNorm, BatchNormMode
from dgnet_jax.models.convolutions import residual_convolution
from dgnet_jax.models.layers import fan_out_normal
from dgnet_jax.models.norms import InstanceNorm
from dgnet_jax.models.pooling import max_pool
from dgnet_jax.types import Array

IBN_STAGES = 3  # the first stages, whose features tell more about appearance than about content


class InstanceBatchNorm(nn.Module):
  """Instance norm of the first half of the channels (rounded down), BatchNorm of the others."""

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode) -> Array:
    half = x.shape[-1] // 2
    instance = InstanceNorm(name='instance')(x[..., :half])
    return jnp.concatenate([instance, BatchNorm(name='batch')(x[..., half:], mode)], axis=-1)


class Bottleneck(nn.Module):
  """1x1 to `width`, 3x3, 1x1 to 4 * width, each with BatchNorm, added to the input or its projection.

  Attributes:
    width: channels of the first two convolutions.
    stride: stride of the 3x3 convolution.
    instance_norm: the first normalization is `InstanceBatchNorm`.
  """

  width: int
  stride: int
  instance_norm: bool
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode) -> Array:
    def convolution(features: int, kernel_size: int, stride: int, name: str) -> nn.Conv:
      return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=stride,
        padding=(kernel_size - 1) // 2,
        use_bias=False,
        kernel_init=fan_out_normal,
        conv_general_dilated_cls=lambda: residual_convolution,
        dtype=self.dtype,
        name=name,
      )

    first_norm = InstanceBatchNorm(name='norm_0') if self.instance_norm else BatchNorm(name='norm_0')
    y = nn.relu(first_norm(convolution(self.width, 1, 1, 'conv_0')(x), mode))
    y = nn.relu(BatchNorm(name='norm_1')(convolution(self.width, 3, self.stride, 'conv_1')(y), mode))
    y = BatchNorm(name='norm_2')(convolution(4 * self.width, 1, 1, 'conv_2')(y), mode)
    if self.stride != 1 or x.shape[-1] != 4 * self.width:
      x = BatchNorm(name='project_norm')(convolution(4 * self.width, 1, self.stride, 'project')(x), mode)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Image f[N, H, W, 3] -> features f[N, H/16, W/16, 32 * width] with four stages.

  Attributes:
    stage_sizes: number of blocks of each stage; every stage doubles the channels.
    width: channels of the stem.
    last_stride: stride of the last stage; 2 halves the features' height and width.
    instance_norm: the blocks of the first three stages begin with an instance norm of half the channels: IBN-Net a.
  """

  stage_sizes: tuple[int, ...]
  width: int
  last_stride: int
  dtype: jnp.dtype | None = None
  instance_norm: bool = False

  @staticmethod
  def stride(stage_sizes: tuple[int, ...], last_stride: int) -> int:
    """Returns the pixels from one cell of the features to the next.

    With odd windows padded equally on both sides, a window with stride 2 is centered at every second cell from cell 0
    on. So the cells of the features are centered at the pixels 0, stride, 2 * stride and so on.
    """
    last = len(stage_sizes) - 1
    return (4 << max(last - 1, 0)) * (last_stride if last else 1)

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
    x = max_pool(x, stride=2)
    last = len(self.stage_sizes) - 1
    for stage, num_blocks in enumerate(self.stage_sizes):
      first_stride = 1 if stage == 0 else self.last_stride if stage == last else 2
      for i in range(num_blocks):
        block = Bottleneck(
          self.width * 2**stage,
          first_stride if i == 0 else 1,
          self.instance_norm and stage < IBN_STAGES,
          self.dtype,
          name=f'stage_{stage}_block_{i}',
        )
        x = block(x, mode)
    return x
