"""The shape encoder of the correspondence generator: what is where in an image, whatever its colours.

It sees every image recoloured at random in training, so that its output can depend on edges, but not on the colour or
the lightness of clothes.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from dgnet_jax.models.layers import ConvLayer
from dgnet_jax.models.warping import repeated, space_to_depth, stretched
from dgnet_jax.types import Array, at_least_float32

FINEST_STRIDE = 2  # the finest maps of shapes have half the image's size
POSITION_SHARE = 0.35  # initial weight of the position in a descriptor, whose other part has length 1
ROW_WAVES, COLUMN_WAVES = (1, 2, 4), (1, 2)  # quarter periods of the position's waves from the centre to the edge
MASK_BIAS = 1.0  # the mask starts above one half: everything is generated
COLOUR_SPREAD, SLOPE_SPREAD = 0.8, 0.3  # standard deviations of the random recolouring
UNIT_EPSILON = 1e-6


@flax.struct.dataclass
class Shape:
  """What is where in N images; maps of strides s have the size of the image divided by s.

  Attributes:
    descriptors: f[N, h, w, D] at the stride of the attention: what each cell shows, for comparison by inner product.
    fine: f[N, H / s, W / s, E] at the stride of the attention and every finer one down to 2, coarsest first.
    mask: f[N, H, W, 1], logits of the part to be generated.
  """

  descriptors: Array
  fine: tuple[Array, ...]
  mask: Array


def recoloured(image: Array, key: Array) -> Array:
  """Recolours each image at random: edges between colours are kept, the colours themselves are not.

  A random 3x3 colour matrix M is followed by a sine with random slope a and phase b for each channel:
  `sin(a M x + b)`.

  Args:
    image: f[N, H, W, 3], normalized.
    key: random key.

  Returns:
    f[N, H, W, 3], in [-1, 1].
  """
  matrix_key, slope_key, phase_key = jax.random.split(key, 3)
  count, dtype = image.shape[0], image.dtype
  matrix = COLOUR_SPREAD * jax.random.normal(matrix_key, (count, 3, 3), dtype)
  slope = 1 + SLOPE_SPREAD * jax.random.normal(slope_key, (count, 1, 1, 3), dtype)
  phase = 2 * jnp.pi * jax.random.uniform(phase_key, (count, 1, 1, 3), dtype)
  return jnp.sin(slope * jnp.einsum('nhwc,ncd->nhwd', image, matrix) + phase)


def original_colours(image: Array) -> Array:
  """Brings an image to the range of `recoloured`, for use after training."""
  return jnp.sin(image)


class ShapeEncoder(nn.Module):
  """A U-Net from images f[N, H, W, 3], recoloured or not, to their `Shape`.

  Its maps have strides 2, 4, ... up to 4 times the attention's.

  Attributes:
    width: channels at stride 2; twice as many at all coarser strides.
    descriptor_size: channels of a descriptor, without its position.
    attention_stride: stride of the descriptors, a power of 2 from 2.
  """

  width: int
  descriptor_size: int
  attention_stride: int
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array) -> Shape:
    options: dict[str, Any] = {
      'norm': 'instance',
      'activation': self.activation,
      'padding': self.padding,
      'dtype': self.dtype,
    }
    plain: dict[str, Any] = options | {'norm': 'none', 'activation': 'none'}
    strides = [FINEST_STRIDE]
    while strides[-1] < 4 * self.attention_stride:
      strides.append(2 * strides[-1])

    def channels(stride: int) -> int:
      return self.width if stride == FINEST_STRIDE else 2 * self.width

    x = space_to_depth(image, FINEST_STRIDE)
    skips: dict[int, Array] = {}
    for stride in strides:
      step = 1 if stride == FINEST_STRIDE else 2
      x = ConvLayer(channels(stride), 3, stride=step, name=f'down_{stride}_0', **options)(x)
      if stride < strides[-1]:
        x = ConvLayer(channels(stride), 3, name=f'down_{stride}_1', **options)(x)
        skips[stride] = x
    for i in range(2):
      x += ConvLayer(channels(strides[-1]), 3, name=f'bottom_{i}', **options)(x)

    descriptors, fine = None, []
    for stride in reversed(strides[:-1]):
      x = jnp.concatenate([repeated(x, 2), skips[stride]], axis=-1)
      x = ConvLayer(channels(stride), 3, name=f'up_{stride}_0', **options)(x)
      if stride == FINEST_STRIDE:
        x = ConvLayer(channels(stride), 3, name=f'up_{stride}_1', **options)(x)
      if stride == self.attention_stride:
        raw = ConvLayer(self.descriptor_size, 1, name='descriptor', **plain)(x)
        descriptors = self._with_position(raw)
        fine.append(raw)
      elif stride < self.attention_stride:
        fine.append(ConvLayer(self.descriptor_size, 1, name=f'fine_{stride}', **plain)(x))
    # A smooth mask: with a free value for each pixel it becomes a dither, half of which hides the person well enough.
    mask = stretched(at_least_float32(ConvLayer(1, 1, name='mask', **plain)(x)), FINEST_STRIDE)
    assert descriptors is not None  # attention_stride is one of the strides
    return Shape(descriptors, tuple(fine), mask + MASK_BIAS)

  def _with_position(self, raw: Array) -> Array:
    """Scales descriptors to length 1 and appends waves of the position, with a trainable share."""
    count, height, width, _ = raw.shape
    rows, columns = jnp.linspace(-1, 1, height)[:, None], jnp.linspace(-1, 1, width)[None]
    along = [(rows, f) for f in ROW_WAVES] + [(columns, f) for f in COLUMN_WAVES]
    waves = [wave(jnp.pi / 2 * f * axis) for axis, f in along for wave in (jnp.sin, jnp.cos)]
    position = jnp.stack([jnp.broadcast_to(wave, (height, width)) for wave in waves], axis=-1)
    share = self.param('position_share', nn.initializers.constant(POSITION_SHARE), ())
    wide = at_least_float32(raw)
    unit = wide * jax.lax.rsqrt(jnp.square(wide).sum(-1, keepdims=True) + UNIT_EPSILON)
    return jnp.concatenate([unit, jnp.broadcast_to(share * position, (count, *position.shape))], axis=-1)
