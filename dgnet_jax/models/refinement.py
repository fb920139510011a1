"""The last stage of the correspondence generator: mends the fetched pixels, and puts them into the structure image."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from dgnet_jax.models.fetching import Donors, Fetched
from dgnet_jax.models.layers import ConvLayer
from dgnet_jax.models.norms import Activation
from dgnet_jax.models.shape_encoder import FINEST_STRIDE, Shape
from dgnet_jax.models.warping import block_means, repeated, space_to_depth
from dgnet_jax.types import Array, at_least_float32

TRUST_BIAS = 1.0  # fetched pixels are trusted first
PASSED_SHAPE = 8  # channels of the shape that the refinement sees
last_normal = nn.initializers.variance_scaling(0.1, 'fan_in', 'normal')


@flax.struct.dataclass
class Refined:
  """The generated images.

  Attributes:
    image: f[N, H, W, 3], the result: what was made inside the mask, the structure image outside.
    trust: f[N, H, W, 1] in [0, 1], share of the fetched pixels in what was made.
  """

  image: Array
  trust: Array


class Refinement(nn.Module):
  """Residual blocks with AdaIN at half the image's size.

  With fetched pixels f, the attention's mixture m of the donors' mean colours, and the network's colours c and trust t:

      made = t f + (1 - t) (m + c)        image = mask made + (1 - mask) structure

  Attributes:
    width: channels.
    num_blocks: residual blocks.
    style_width: hidden units between the appearance code and AdaIN's parameters.
    attention_stride: as in `ShapeEncoder`.
  """

  width: int
  num_blocks: int
  style_width: int
  attention_stride: int
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(
    self, shape: Shape, mask: Array, structure: Array, donors: Donors, fetched: Fetched, style: Array
  ) -> Refined:
    """Makes images.

    Args:
      shape: of the N structure images.
      mask: f[N, H, W, 1] in [0, 1], the part to be generated.
      structure: f[N, H, W, 3], normalized.
      donors: S donors of each image.
      fetched: from `Fetch`.
      style: f[N, F], appearance codes of the re-id network.
    """
    stride = self.attention_stride
    mixture, certainty = self._mixture(donors, fetched)
    passed = self._layer(PASSED_SHAPE, 1, 'passed', activation='none')(shape.fine[-1])
    coarse = repeated(jnp.concatenate([mixture, certainty], axis=-1), stride // FINEST_STRIDE)
    blocks = jnp.concatenate([fetched.pixels, mask, (1 - mask) * structure], axis=-1)
    x = jnp.concatenate([coarse, passed, space_to_depth(blocks, FINEST_STRIDE)], axis=-1)
    x = self._blocks(self._layer(self.width, 3, 'in')(x), style)
    x = repeated(self._layer(self.width // 3, 3, 'up')(x), FINEST_STRIDE)
    x = jnp.concatenate([x, fetched.pixels], axis=-1)
    x = at_least_float32(self._layer(4, 3, 'to_rgb', activation='none', kernel_init=last_normal)(x))
    trust, colours = jax.nn.sigmoid(x[..., 3:] + TRUST_BIAS), x[..., :3]
    made = trust * fetched.pixels + (1 - trust) * (repeated(mixture[..., :3], stride) + colours)
    return Refined(mask * made + (1 - mask) * structure, trust)

  def _layer(self, features: int, size: int, name: str, **changes: Any) -> ConvLayer:
    options: dict[str, Any] = {'activation': self.activation, 'padding': self.padding, 'dtype': self.dtype}
    return ConvLayer(features, size, name=name, **(options | changes))

  def _mixture(self, donors: Donors, fetched: Fetched) -> tuple[Array, Array]:
    """Mixes all cells by attention: mean colours and features f[N, h, w, C], and certainty f[N, h, w, 1]."""
    count, num_donors, height, width = donors.image.shape[:4]
    stride = self.attention_stride
    flat = donors.image.reshape(-1, height, width, 3)
    features = self._layer(self.width // 2, 3, 'values')(space_to_depth(flat, stride))
    values = jnp.concatenate([block_means(flat, stride), features.astype(flat.dtype)], axis=-1)
    values = values.reshape(count, num_donors, -1, values.shape[-1])
    share, attention = fetched.share, fetched.attention
    mixture = jnp.einsum('nqsk,nskc->nqsc', attention, values)
    certainty = jnp.square(attention).sum(-1)
    mixture, certainty = (mixture * share[..., None]).sum(2), (certainty * share).sum(2)
    cells = count, height // stride, width // stride, -1
    return mixture.reshape(cells), certainty.reshape(cells)

  def _blocks(self, x: Array, style: Array) -> Array:
    style = nn.Dense(self.style_width, dtype=self.dtype, name='style')(style)
    style = Activation(self.activation, name='style_activation')(style)
    for i in range(self.num_blocks):
      dense = nn.Dense(2 * self.width, kernel_init=nn.initializers.zeros, dtype=self.dtype, name=f'adain_{i}')
      scale, shift = jnp.split(dense(style), 2, axis=-1)
      y = self._layer(self.width, 3, f'block_{i}_0', norm='adaptive')(x, 1 + scale, shift)
      x += self._layer(self.width, 3, f'block_{i}_1', activation='none')(y) / 2
    return x
