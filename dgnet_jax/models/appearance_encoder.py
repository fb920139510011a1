"""E_a, the appearance encoder: the re-id backbone with its heads (release facts 25, 31 to 34)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dgnet_jax.models.backbones import make_backbone
from dgnet_jax.models.batch_norm import BatchNorm, BatchNormMode
from dgnet_jax.models.pooling import StripePool
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


class HeadOutput(NamedTuple):
  """Outputs of a head for N pooled features.

  Attributes:
    logits: f[N, K].
    feature: f[N, D], the embedding: the input of the classifier, before dropout.
    metric_feature: f[N, D], the input of the BatchNorm that makes it, for metric losses.
  """

  logits: Array
  feature: Array
  metric_feature: Array


class Head(nn.Module):
  """Pooled features f[N, C] -> HeadOutput.

  Neck release: linear, BatchNorm, dropout, linear, without ReLU. Neck bnneck: BatchNorm without bias, linear without
  bias (Luo et al. 2019, arXiv 1903.07071).

  Attributes:
    width: size of the embedding; neck bnneck has that of the pooled feature instead.
    dropout: probability; neck bnneck has none.
    neck: release or bnneck.
    split_over: the mesh if the classifier is split by identity over its axis 'model'; None if it is whole.
  """

  width: int
  num_identities: int
  dropout: float
  split_over: Mesh | None = None
  neck: str = 'release'
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode, deterministic: bool) -> HeadOutput:
    is_release = self.neck == 'release'
    if is_release:
      x = nn.Dense(self.width, kernel_init=bottleneck_normal, dtype=self.dtype, name='bottleneck')(x)
    metric_feature = x
    feature = BatchNorm(use_bias=is_release, name='norm')(x, mode)
    x = nn.Dropout(self.dropout, deterministic=deterministic)(feature) if is_release else feature
    mesh = None if self.is_initializing() else self.split_over
    if mesh is not None:
      # Devices that split the classifier exchange their rows, which are short, and not the kernel or the logits. What
      # comes before stays split over all devices.
      x = constrained(x, batch_sharding(mesh))
      x = constrained(x, rows_sharding(mesh))
    logits = nn.Dense(
      self.num_identities, is_release, kernel_init=classifier_normal, dtype=self.dtype, name='classifier'
    )(x)
    if mesh is not None:
      logits = constrained(logits, identity_sharding(mesh, rows=DATA_AXIS))
    return HeadOutput(logits, feature, metric_feature)


class AppearanceEncoder(nn.Module):
  """Image f[N, H, W, 3] -> AppearanceOutput with leading axis N.

  Attributes:
    stage_sizes, width, last_stride: of the backbone, as in `make_backbone`.
    pool: as in `StripePool`.
    num_parts: horizontal stripes that make up the code.
    style: AB has a primary and a fine-grained head; normal has a primary head only; PCB has a primary head for each
      part (Sun et al., arXiv 1711.09349).
    normalize_code: scale the code to unit length.
    detach_code: style AB only: stop gradients at the code (release fact 16).
    backbone: as in `make_backbone`.
    neck, split_over: as in `Head`.
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
  backbone: str = 'resnet'
  neck: str = 'release'
  split_over: Mesh | None = None
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array, mode: BatchNormMode, deterministic: bool) -> AppearanceOutput:
    backbone = make_backbone(self.backbone, self.stage_sizes, self.width, self.last_stride, self.dtype)
    features = backbone(image, mode)
    pool = StripePool(self.pool, name='pool')
    parts = pool(features, self.num_parts)
    code = jnp.swapaxes(parts, 1, 2).reshape(image.shape[0], -1)  # channel-major: release fact 25
    if self.normalize_code:
      code = unit_length(code)
    if self.style == 'AB' and self.detach_code:
      code = jax.lax.stop_gradient(code)

    def apply_head(x: Array, dropout: float, name: str) -> HeadOutput:
      head = Head(
        self.head_width, self.num_identities, dropout, self.split_over, self.neck, dtype=self.dtype, name=name
      )
      return head(x, mode, deterministic)

    def output(primary: HeadOutput, fine: HeadOutput | None = None) -> AppearanceOutput:
      return AppearanceOutput(
        code=code,
        primary_logits=primary.logits,
        fine_logits=fine and fine.logits,
        primary_feature=primary.feature,
        fine_feature=fine and fine.feature,
        primary_metric_feature=primary.metric_feature,
        fine_metric_feature=fine and fine.metric_feature,
      )

    if self.style == 'PCB':
      outputs = [apply_head(parts[:, i], self.primary_dropout, f'part_head_{i}') for i in range(self.num_parts)]
      return output(HeadOutput(*(jnp.stack(values, axis=1) for values in zip(*outputs, strict=True))))
    pooled = pool(features, 1)[:, 0]
    primary = apply_head(pooled, self.primary_dropout, 'primary_head')
    if self.style == 'normal':
      return output(primary)
    fine = apply_head(pooled, self.fine_dropout, 'fine_head')
    return output(primary, fine)
