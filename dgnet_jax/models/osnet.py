"""OSNet, the omni-scale network (Zhou et al. 2019, arXiv 1905.00953), up to its last map."""

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.config.backbones import OSNET_MULTIPLES
from dgnet_jax.models.batch_norm import BatchNorm, BatchNormMode
from dgnet_jax.models.convolutions import residual_convolution
from dgnet_jax.models.layers import fan_out_normal
from dgnet_jax.models.pooling import max_pool
from dgnet_jax.types import Array

NUM_STREAMS = 4  # of a block; stream t sees 2t + 1 pixels in each direction
BOTTLENECK = 4  # a block's streams have its channels divided by this
GATE_BOTTLENECK = 16  # the gate's hidden units are a stream's channels divided by this


def _convolution(
  features: int, kernel_size: int, name: str, dtype: jnp.dtype | None, *, stride: int = 1, groups: int = 1
) -> nn.Conv:
  return nn.Conv(
    features,
    (kernel_size, kernel_size),
    strides=stride,
    padding=(kernel_size - 1) // 2,
    feature_group_count=groups,
    use_bias=False,
    kernel_init=fan_out_normal,
    conv_general_dilated_cls=lambda: residual_convolution,
    dtype=dtype,
    name=name,
  )


class ConvNorm(nn.Module):
  """Convolution without bias, BatchNorm, and ReLU unless `linear`."""

  features: int
  kernel_size: int = 1
  stride: int = 1
  linear: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode) -> Array:
    x = _convolution(self.features, self.kernel_size, 'conv', self.dtype, stride=self.stride)(x)
    x = BatchNorm(name='norm')(x, mode)
    return x if self.linear else nn.relu(x)


class LightConv(nn.Module):
  """Lite 3x3: 1x1 convolution, then a 3x3 convolution of each channel, BatchNorm, ReLU (figure 3b)."""

  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode) -> Array:
    channels = x.shape[-1]
    x = _convolution(channels, 1, 'point', self.dtype)(x)
    x = _convolution(channels, 3, 'depth', self.dtype, groups=channels)(x)
    return nn.relu(BatchNorm(name='norm')(x, mode))


class AggregationGate(nn.Module):
  """Weights of a stream's channels, from their means: f[N, H, W, C] -> f[N, 1, 1, C] in (0, 1) (eq. 3)."""

  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]

    def layer(features: int, name: str) -> nn.Conv:
      return nn.Conv(features, (1, 1), kernel_init=fan_out_normal, dtype=self.dtype, name=name)

    hidden = nn.relu(layer(max(channels // GATE_BOTTLENECK, 1), 'reduce')(x.mean((1, 2), keepdims=True)))
    return nn.sigmoid(layer(channels, 'expand')(hidden))


class OmniScaleBlock(nn.Module):
  """Four streams of 1 to 4 lite 3x3 convolutions, added with the weights of one gate, in a residual bottleneck."""

  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode) -> Array:
    reduced = ConvNorm(self.features // BOTTLENECK, dtype=self.dtype, name='reduce')(x, mode)
    gate = AggregationGate(self.dtype, name='gate')  # of all streams: that is what unifies the scales
    total = jnp.zeros_like(reduced)
    for length in range(1, NUM_STREAMS + 1):
      y = reduced
      for i in range(length):
        y = LightConv(self.dtype, name=f'stream_{length}_conv_{i}')(y, mode)
      total += gate(y) * y
    y = ConvNorm(self.features, linear=True, dtype=self.dtype, name='expand')(total, mode)
    if x.shape[-1] != self.features:
      x = ConvNorm(self.features, linear=True, dtype=self.dtype, name='project')(x, mode)
    return nn.relu(x + y)


class OSNet(nn.Module):
  """Image f[N, H, W, 3] -> features f[N, H/16, W/16, 8 * width].

  Attributes:
    stage_sizes: number of blocks of each of the three stages; 2, 2, 2 in the paper.
    width: channels of the stem; 64 is x1.0, 48 x0.75, 32 x0.5 and 16 x0.25.
  """

  stage_sizes: tuple[int, ...]
  width: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array, mode: BatchNormMode) -> Array:
    x = max_pool(ConvNorm(self.width, 7, 2, dtype=self.dtype, name='stem')(image, mode), stride=2)
    last = len(self.stage_sizes) - 1
    for stage, num_blocks in enumerate(self.stage_sizes):
      features = OSNET_MULTIPLES[stage] * self.width
      for i in range(num_blocks):
        x = OmniScaleBlock(features, self.dtype, name=f'stage_{stage}_block_{i}')(x, mode)
      if stage < last:
        x = ConvNorm(features, dtype=self.dtype, name=f'transition_{stage}')(x, mode)
        x = nn.avg_pool(x, (2, 2), (2, 2))  # type: ignore[no-untyped-call]
    return ConvNorm(features, dtype=self.dtype, name='last')(x, mode)
