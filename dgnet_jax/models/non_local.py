"""Self-attention over a map's pixels (Zhang et al., SAGAN, arXiv 1805.08318), the release's non-local block."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.models.norms import widened
from dgnet_jax.types import Array

KEY_SHARE = 8  # queries and keys have so many times fewer channels than the map


class NonLocalBlock(nn.Module):
  """f[N, H, W, C] -> the same plus `scale` times what each pixel gathers from all; `scale` starts at 0.

  Queries and keys are compared by their plain inner product.
  """

  kernel_init: nn.initializers.Initializer
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]

    def project(features: int, name: str) -> Array:
      made = nn.Conv(features, (1, 1), kernel_init=self.kernel_init, dtype=self.dtype, name=name)(x)
      return made.reshape(x.shape[0], -1, features)

    keys_width = max(channels // KEY_SHARE, 1)
    query, key, value = project(keys_width, 'query'), project(keys_width, 'key'), project(channels, 'value')
    weights = jax.nn.softmax(widened(jnp.einsum('nqc,nkc->nqk', query, key)))
    gathered = jnp.einsum('nqk,nkc->nqc', weights.astype(value.dtype), value).reshape(x.shape)
    scale = self.param('scale', nn.initializers.zeros, (1,))
    return scale.astype(x.dtype) * gathered + x
