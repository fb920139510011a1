"""Fetches the clothes of donors: where in a donor's image each pixel of the structure image finds its match.

For every cell of the structure image, attention compares its descriptor with those of all cells of the donor. The
donor's own pixels are sampled at the mean place, refined level by level to full size: this is what carries texture.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from dgnet_jax.models.layers import ConvLayer
from dgnet_jax.models.plain_operations import are_plain
from dgnet_jax.models.shape_encoder import Shape
from dgnet_jax.models.warping import cell_centres, repeated, sample, stretched
from dgnet_jax.types import Array, at_least_float32

TEMPERATURE = 2.7  # initial logarithm of the factor of the attention's inner products
# Places are means of a sharper attention: the mean of all that is similar lies in the middle of the person.
PLACE_SHARPNESS = 2.0
IMPOSSIBLE = -1e9  # logit of a donor with weight 0


@flax.struct.dataclass
class Donors:
  """S images of each of N people whose clothes are fetched.

  Attributes:
    image: f[N, S, H, W, 3], normalized.
    descriptors: f[N, S, h, w, D], as in `Shape`.
    fine: f[N, S, ., ., E], as in `Shape`.
    weight: f[N, S], shares of the donors, at least 0, where they match equally well.
    competition: f[N]; 1: a donor's share of a cell also grows with how well it matches there; 0: it does not.
  """

  image: Array
  descriptors: Array
  fine: tuple[Array, ...]
  weight: Array
  competition: Array


@flax.struct.dataclass
class Fetched:
  """What was fetched for N images from S donors each.

  Attributes:
    logits: f[N, h w, S, h, w], attention of each cell of the structure to the cells of each donor, before softmax.
    attention: f[N, h w, S, h w], sums to 1 over the cells of a donor.
    share: f[N, h w, S], shares of the donors of each cell, sum to 1.
    place: f[N, S, H, W, 2], where each pixel comes from in each donor, (row, column) in pixels.
    pixels: f[N, H, W, 3], the donors' pixels at these places, mixed by their shares.
  """

  logits: Array
  attention: Array
  share: Array
  place: Array
  pixels: Array


class Fetch(nn.Module):
  """Attention from the cells of the structure to those of the donors, and the donors' pixels from there.

  Attributes:
    width: channels of the network that refines places.
    attention_stride: as in `ShapeEncoder`.
  """

  width: int
  attention_stride: int
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, shape: Shape, donors: Donors) -> Fetched:
    """Fetches the pixels of `donors`, S for each of the N images of `shape`."""
    count, num_donors, height, width = donors.image.shape[:4]
    stride = self.attention_stride
    rows, columns = height // stride, width // stride
    factor = jnp.exp(self.param('temperature', nn.initializers.constant(TEMPERATURE), ()))
    queries = shape.descriptors.reshape(count, rows * columns, -1)
    keys = donors.descriptors.reshape(count, num_donors, rows * columns, -1)
    # At their default precision, accelerators would round places to about a pixel.
    precise = jax.lax.Precision.HIGHEST
    logits = factor * jnp.einsum('nqd,nskd->nqsk', queries, keys, precision=precise)
    mass = jax.nn.logsumexp(logits, axis=-1)
    attention = jnp.exp(logits - mass[..., None])
    share = donors.competition[:, None, None] * mass + _log(donors.weight)[:, None]
    share = jax.nn.softmax(share, axis=-1)

    centres = cell_centres(rows, columns, stride).reshape(-1, 2)
    sharper = jax.nn.softmax(PLACE_SHARPNESS * logits, axis=-1)
    if are_plain():  # TensorFlow 2.21 converts a product with two columns to one that TFLite cannot run
      rows_and_columns = [jnp.sum(sharper * centres[:, axis], axis=-1) for axis in (0, 1)]
      place = jnp.stack(rows_and_columns, axis=-1).swapaxes(1, 2)
    else:
      place = jnp.einsum('nqsk,kc->nsqc', sharper, centres, precision=precise)
    place = self._refined(place.reshape(-1, rows, columns, 2), shape, donors)
    pixels = sample(donors.image.reshape(-1, height, width, 3), place).reshape(donors.image.shape)
    shares = repeated(share.transpose(0, 2, 1).reshape(-1, rows, columns, 1), stride)
    return Fetched(
      logits=logits.reshape(count, rows * columns, num_donors, rows, columns),
      attention=attention,
      share=share,
      place=place.reshape(count, num_donors, height, width, 2),
      pixels=(pixels * shares.reshape(*pixels.shape[:-1], 1)).sum(1),
    )

  def _refined(self, place: Array, shape: Shape, donors: Donors) -> Array:
    """Refines places f[N S, h, w, 2] at the attention's stride to those of all pixels, f[N S, H, W, 2].

    At each finer stride the donor's map is moved to the places that are known so far, and a small network that compares
    it with the structure's map corrects them.
    """
    num_donors, stride = donors.image.shape[1], self.attention_stride
    options: dict[str, Any] = {'padding': self.padding, 'dtype': self.dtype}
    for structure_map, donor_map in zip(shape.fine[1:], donors.fine[1:], strict=True):
      place = stretched(place, 2)
      stride //= 2
      moved = sample(donor_map.reshape(-1, *donor_map.shape[2:]), (place - (stride - 1) / 2) / stride)
      here = jnp.repeat(structure_map, num_donors, axis=0)
      x = jnp.concatenate([here, moved, here * moved], axis=-1)
      x = ConvLayer(self.width, 3, activation=self.activation, name=f'flow_{stride}_0', **options)(x)
      zero: dict[str, Any] = {'activation': 'none', 'kernel_init': nn.initializers.zeros}
      change = ConvLayer(2, 3, name=f'flow_{stride}_1', **zero, **options)(x)
      place += stride * at_least_float32(change)
    return stretched(place, stride)


def _log(weight: Array) -> Array:
  """Logarithm, at least `IMPOSSIBLE`; its gradient at 0 is 0."""
  positive = weight > 0
  return jnp.where(positive, jnp.log(jnp.where(positive, weight, 1)), IMPOSSIBLE)
