"""E_a, the appearance encoder: the re-id backbone with its heads (release facts 25, 31 to 34)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dgnet_jax.models.batch_norm import BatchNorm, BatchNormMode
from dgnet_jax.models.pooling import stripe_pool
from dgnet_jax.models.resnet import ResNet
from dgnet_jax.sharding import DATA_AXIS, batch_sharding, constrained, identity_sharding, rows_sharding
from dgnet_jax.types import AppearanceOutput, Array, at_least_float32

# Fan-out with gain sqrt 2, and a classifier that starts close to zero: release fact 34.
bottleneck_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
classifier_normal = nn.initializers.normal(0.001)

CODE_EPSILON = 1e-8


def unit_length(code: Array) -> Array:
  """Divides each code f[..., D] by its L2 norm plus 1e-8 (release fact 33).

  The norm is computed in float32 or wider. At a zero code its gradient is taken as 0.
  """
  wide = at_least_float32(code)
  square = jnp.square(wide).sum(-1, keepdims=True)
  is_zero = square == 0
  norm = jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, square)))
  return (wide / (norm + CODE_EPSILON)).astype(code.dtype)


class Head(nn.Module):
  """Linear, BatchNorm, dropout, linear, without ReLU: f[N, C] -> logits f[N, K] and bottleneck f[N, width].

  Attributes:
    split_over: the mesh if the classifier is split by identity over its axis 'model'; None if it is whole.
  """

  width: int
  num_identities: int
  dropout: float
  split_over: Mesh | None = None
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode, deterministic: bool) -> tuple[Array, Array]:
    x = nn.Dense(self.width, kernel_init=bottleneck_normal, dtype=self.dtype, name='bottleneck')(x)
    feature = BatchNorm(name='norm')(x, mode)
    x = nn.Dropout(self.dropout, deterministic=deterministic)(feature)
    mesh = None if self.is_initializing() else self.split_over
    if mesh is not None:
      # Devices that split the classifier exchange their rows, which are short, and not the kernel or the logits. What
      # comes before stays split over all devices.
      x = constrained(x, batch_sharding(mesh))
      x = constrained(x, rows_sharding(mesh))
    logits = nn.Dense(self.num_identities, kernel_init=classifier_normal, dtype=self.dtype, name='classifier')(x)
    if mesh is not None:
      logits = constrained(logits, identity_sharding(mesh, rows=DATA_AXIS))
    return logits, feature


class AppearanceEncoder(nn.Module):
  """Image f[N, H, W, 3] -> AppearanceOutput with leading axis N.

  Attributes:
    stage_sizes, width, last_stride: of the backbone, as in `ResNet`.
    pool: max or avg.
    num_parts: horizontal stripes that make up the code.
    style: AB has a primary and a fine-grained head; normal has a primary head only; PCB has a primary head for each
      part (Sun et al., arXiv 1711.09349).
    normalize_code: scale the code to unit length.
    detach_code: style AB only: stop gradients at the code (release fact 16).
    split_over: as in `Head`.
  """

  stage_sizes: tuple[int, ...]
  width: int
  last_stride: int
  pool: str
  num_parts: int
  head_width: int
  num_identities: int
  primary_dropout: float
  fine_dropout: float
  style: str = 'AB'
  normalize_code: bool = False
  detach_code: bool = True
  split_over: Mesh | None = None
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array, mode: BatchNormMode, deterministic: bool) -> AppearanceOutput:
    features = ResNet(self.stage_sizes, self.width, self.last_stride, self.dtype, name='backbone')(image, mode)
    parts = stripe_pool(features, self.num_parts, self.pool)
    code = jnp.swapaxes(parts, 1, 2).reshape(image.shape[0], -1)  # channel-major: release fact 25
    if self.normalize_code:
      code = unit_length(code)

    def apply_head(x: Array, dropout: float, name: str) -> tuple[Array, Array]:
      head = Head(self.head_width, self.num_identities, dropout, self.split_over, dtype=self.dtype, name=name)
      return head(x, mode, deterministic)

    if self.style == 'PCB':
      outputs = [apply_head(parts[:, i], self.primary_dropout, f'part_head_{i}') for i in range(self.num_parts)]
      logits, feature = (jnp.stack(values, axis=1) for values in zip(*outputs, strict=True))
      return AppearanceOutput(code, logits, None, feature, None)
    pooled = stripe_pool(features, 1, self.pool)[:, 0]
    primary_logits, primary_feature = apply_head(pooled, self.primary_dropout, 'primary_head')
    if self.style == 'normal':
      return AppearanceOutput(code, primary_logits, None, primary_feature, None)
    fine_logits, fine_feature = apply_head(pooled, self.fine_dropout, 'fine_head')
    code = jax.lax.stop_gradient(code) if self.detach_code else code
    return AppearanceOutput(code, primary_logits, fine_logits, primary_feature, fine_feature)
