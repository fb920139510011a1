"""The release's non-local block: self-attention over positions (Zhang et al., SAGAN, arXiv 1805.08318)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.types import Array, at_least_float32

KEY_REDUCTION = 8  # the map has 8 times as many channels as queries and keys


class NonLocalBlock(nn.Module):
  """Adds `scale` times the attention output to f[N, H, W, C]; `scale` starts at 0.

  Attention weights are the softmax of inner products of queries and keys, without scaling.
  """

  kernel_init: nn.initializers.Initializer
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]

    def project(features: int, name: str) -> Array:
      projected = nn.Conv(features, (1, 1), kernel_init=self.kernel_init, dtype=self.dtype, name=name)(x)
      return projected.reshape(x.shape[0], -1, features)

    key_size = max(channels // KEY_REDUCTION, 1)
    query, key, value = project(key_size, 'query'), project(key_size, 'key'), project(channels, 'value')
    weights = jax.nn.softmax(at_least_float32(jnp.einsum('nqc,nkc->nqk', query, key)))
    attended = jnp.einsum('nqk,nkc->nqc', weights.astype(value.dtype), value).reshape(x.shape)
    scale = self.param('scale', nn.initializers.zeros, (1,))
    return scale.astype(x.dtype) * attended + x
