"""Shows donors in the light of the structure image's camera.

Cameras differ in light and colours, so the pixels of a donor have the wrong colours in the image of another camera. An
affine map of the colours, predicted from the structure's background and the donor, corrects that.
"""

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.layers import ConvLayer
from dgnet_jax.models.norms import Activation
from dgnet_jax.models.warping import block_means
from dgnet_jax.types import Array, at_least_float32

STRIDE = 4  # light is seen in blocks of so many pixels


class Relighting(nn.Module):
  """Background of a structure image and a donor image -> the donor in the structure's light.

  Of each image, features of its blocks are averaged; from both averages an MLP predicts a matrix A and a shift b, and
  each pixel x becomes `x + A x + b`. A and b start at 0.

  Attributes:
    width: channels of the features.
  """

  width: int
  activation: str = 'leaky_relu'
  padding: str = 'reflect'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, background: Array, donor: Array) -> Array:
    """Relights donors.

    Args:
      background: f[N, H, W, 3], normalized; 0 where the structure image is to be replaced.
      donor: f[N, S, H, W, 3], normalized.

    Returns:
      f[N, S, H, W, 3].
    """
    count, num_donors = donor.shape[:2]
    of_structure = self._features(background, 'structure')
    of_donor = self._features(donor.reshape(-1, *donor.shape[2:]), 'donor')
    x = jnp.concatenate([jnp.repeat(of_structure, num_donors, axis=0), of_donor], axis=-1)
    x = Activation(self.activation, name='activation')(nn.Dense(2 * self.width, dtype=self.dtype, name='hidden')(x))
    x = at_least_float32(nn.Dense(12, kernel_init=nn.initializers.zeros, dtype=self.dtype, name='map')(x))
    matrix, shift = x[:, :9].reshape(count, num_donors, 3, 3), x[:, 9:].reshape(count, num_donors, 1, 1, 3)
    return donor + jnp.einsum('nshwc,nscd->nshwd', donor, matrix) + shift

  def _features(self, image: Array, name: str) -> Array:
    """Averages of features of blocks: f[N, H, W, 3] -> f[N, 2 width]."""
    x = block_means(image, STRIDE)
    for i in range(2):
      x = ConvLayer(
        self.width * (i + 1),
        3,
        stride=i + 1,
        activation=self.activation,
        padding=self.padding,
        dtype=self.dtype,
        name=f'{name}_{i}',
      )(x)
    return x.mean((1, 2))
