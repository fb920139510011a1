"""Inception-v3 (Szegedy et al., arXiv 1512.00567) as FID uses it: the graph of December 2015, up to pool3.

Modules have torchvision's names, so that a parameter's path is its name in a state dict. The network differs from
torchvision's in two ways: 3x3 averages do not count the padding, and the last block uses max pooling.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.models.pooling import average_pool, max_pool
from dgnet_jax.types import Array
from dgnet_jax.utils.xla_options import jit_network

NORM_EPSILON = 1e-3
IMAGE_SIZE = 299  # pixels, height and width that the network was designed for
MIN_SIZE = 75  # pixels; at this size the last block's map is 1x1
FEATURES = 2048

# One convolution: name, channels, kernel (height, width), stride, and whether it is padded to keep the map's size.
Layer = tuple[str, int, tuple[int, int], int, bool]


def _layer(name: str, features: int, height: int, width: int | None = None, *, stride: int = 1) -> Layer:
  """Returns a convolution that is padded if its stride is 1."""
  return name, features, (height, width or height), stride, stride == 1


class ConvNorm(nn.Module):
  """Convolution without bias, BatchNorm with running statistics, ReLU."""

  features: int
  kernel_size_hw: tuple[int, int]
  stride: int
  padded: bool

  @nn.compact
  def __call__(self, x: Array) -> Array:
    margins = [(size // 2, size // 2) if self.padded else (0, 0) for size in self.kernel_size_hw]
    x = nn.Conv(
      self.features,
      self.kernel_size_hw,
      strides=self.stride,
      padding=margins,
      use_bias=False,
      precision=jax.lax.Precision.HIGHEST,  # the lower default of accelerators would change the distances
      name='conv',
    )(x)
    return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=NORM_EPSILON, name='bn')(x))


def _chain(x: Array, *layers: Layer) -> Array:
  """Applies layers in sequence, as children of the calling module."""
  for name, features, kernel_size_hw, stride, padded in layers:
    x = ConvNorm(features, kernel_size_hw, stride, padded, name=name)(x)
  return x


def _joined(*branches: Array) -> Array:
  return jnp.concatenate(branches, axis=-1)


class BlockA(nn.Module):
  """Mixed_5b to 5d: f[N, H, W, C] -> f[N, H, W, 224 + pool_features]."""

  pool_features: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return _joined(
      _chain(x, _layer('branch1x1', 64, 1)),
      _chain(x, _layer('branch5x5_1', 48, 1), _layer('branch5x5_2', 64, 5)),
      _chain(x, _layer('branch3x3dbl_1', 64, 1), _layer('branch3x3dbl_2', 96, 3), _layer('branch3x3dbl_3', 96, 3)),
      _chain(average_pool(x), _layer('branch_pool', self.pool_features, 1)),
    )


class BlockB(nn.Module):
  """Mixed_6a: f[N, H, W, C] -> f[N, (H - 1) // 2, (W - 1) // 2, 480 + C]."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    double = _layer('branch3x3dbl_1', 64, 1), _layer('branch3x3dbl_2', 96, 3), _layer('branch3x3dbl_3', 96, 3, stride=2)
    return _joined(
      _chain(x, _layer('branch3x3', 384, 3, stride=2)), _chain(x, *double), max_pool(x, stride=2, padding=0)
    )


class BlockC(nn.Module):
  """Mixed_6b to 6e: f[N, H, W, C] -> f[N, H, W, 768], with `width` channels between the 1x7 and 7x1 kernels."""

  width: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    single = (
      _layer('branch7x7_1', self.width, 1),
      _layer('branch7x7_2', self.width, 1, 7),
      _layer('branch7x7_3', 192, 7, 1),
    )
    double = (
      _layer('branch7x7dbl_1', self.width, 1),
      _layer('branch7x7dbl_2', self.width, 7, 1),
      _layer('branch7x7dbl_3', self.width, 1, 7),
      _layer('branch7x7dbl_4', self.width, 7, 1),
      _layer('branch7x7dbl_5', 192, 1, 7),
    )
    return _joined(
      _chain(x, _layer('branch1x1', 192, 1)),
      _chain(x, *single),
      _chain(x, *double),
      _chain(average_pool(x), _layer('branch_pool', 192, 1)),
    )


class BlockD(nn.Module):
  """Mixed_7a: f[N, H, W, C] -> f[N, (H - 1) // 2, (W - 1) // 2, 512 + C]."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    long = (
      _layer('branch7x7x3_1', 192, 1),
      _layer('branch7x7x3_2', 192, 1, 7),
      _layer('branch7x7x3_3', 192, 7, 1),
      _layer('branch7x7x3_4', 192, 3, stride=2),
    )
    short = _layer('branch3x3_1', 192, 1), _layer('branch3x3_2', 320, 3, stride=2)
    return _joined(_chain(x, *short), _chain(x, *long), max_pool(x, stride=2, padding=0))


class BlockE(nn.Module):
  """Mixed_7b and 7c: f[N, H, W, C] -> f[N, H, W, 2048]. pool: avg or max."""

  pool: str

  @nn.compact
  def __call__(self, x: Array) -> Array:
    pooled = {'avg': average_pool, 'max': max_pool}[self.pool](x)
    single = _chain(x, _layer('branch3x3_1', 384, 1))
    double = _chain(x, _layer('branch3x3dbl_1', 448, 1), _layer('branch3x3dbl_2', 384, 3))
    return _joined(
      _chain(x, _layer('branch1x1', 320, 1)),
      _chain(single, _layer('branch3x3_2a', 384, 1, 3)),
      _chain(single, _layer('branch3x3_2b', 384, 3, 1)),
      _chain(double, _layer('branch3x3dbl_3a', 384, 1, 3)),
      _chain(double, _layer('branch3x3dbl_3b', 384, 3, 1)),
      _chain(pooled, _layer('branch_pool', 192, 1)),
    )


class Inception(nn.Module):
  """Images f[N, H, W, 3] in [-1, 1], at least `MIN_SIZE` high and wide -> features f[N, 2048] of the layer pool3."""

  @nn.compact
  def __call__(self, image: Array) -> Array:
    x = _chain(
      image,
      _layer('Conv2d_1a_3x3', 32, 3, stride=2),
      ('Conv2d_2a_3x3', 32, (3, 3), 1, False),
      _layer('Conv2d_2b_3x3', 64, 3),
    )
    x = _chain(
      max_pool(x, stride=2, padding=0), _layer('Conv2d_3b_1x1', 80, 1), ('Conv2d_4a_3x3', 192, (3, 3), 1, False)
    )
    x = max_pool(x, stride=2, padding=0)
    for letter, pool_features in zip('bcd', (32, 64, 64), strict=True):
      x = BlockA(pool_features, name=f'Mixed_5{letter}')(x)
    x = BlockB(name='Mixed_6a')(x)
    for letter, width in zip('bcde', (128, 160, 160, 192), strict=True):
      x = BlockC(width, name=f'Mixed_6{letter}')(x)
    x = BlockD(name='Mixed_7a')(x)
    x = BlockE('avg', name='Mixed_7b')(x)
    x = BlockE('max', name='Mixed_7c')(x)
    return x.mean((1, 2))


def variable_shapes() -> dict[str, Any]:
  """Returns the shapes and dtypes of {'params', 'batch_stats'}."""
  image = jnp.zeros((1, MIN_SIZE, MIN_SIZE, 3))
  return dict(jax.eval_shape(Inception().init, jax.random.key(0), image))


@jit_network
def inception_features(variables: dict[str, Any], image: Array) -> Array:
  """Computes the features of images.

  Args:
    variables: {'params', 'batch_stats'} of `Inception`.
    image: f32[N, H, W, 3] in [-1, 1], `IMAGE_SIZE` high and wide for FID.

  Returns:
    f32[N, 2048].
  """
  return Inception().apply(variables, image)  # type: ignore[return-value]  # one output
