"""E_a, the re-id backbone with its two heads, and the teacher: a plain re-id network (release facts 25, 31 to 34)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.models.layers import BatchNorm, BatchNormMode, adaptive_pool
from dgnet_jax.models.resnet import ResNet
from dgnet_jax.types import AppearanceOutput, Array

# Fan-out with gain sqrt 2, and a nearly silent classifier: release fact 34.
bottleneck_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
classifier_normal = nn.initializers.normal(0.001)

CODE_EPSILON = 1e-8


class Head(nn.Module):
  """Linear, BatchNorm, dropout, linear; no ReLU. f[N, C] -> logits f[N, K] and bottleneck f[N, width]."""

  width: int
  num_identities: int
  dropout: float
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array, mode: BatchNormMode, deterministic: bool) -> tuple[Array, Array]:
    x = nn.Dense(self.width, kernel_init=bottleneck_normal, dtype=self.dtype, name='bottleneck')(x)
    feature = BatchNorm(name='norm')(x, mode)
    x = nn.Dropout(self.dropout, deterministic=deterministic)(feature)
    logits = nn.Dense(self.num_identities, kernel_init=classifier_normal, dtype=self.dtype, name='classifier')(x)
    return logits, feature


class AppearanceEncoder(nn.Module):
  """Image f[N, H, W, 3] -> AppearanceOutput with leading axis N.

  style: AB has a primary and a fine-grained head, and its code is a constant to whoever takes it, if `detach_code`;
  normal has the primary head alone; PCB has a primary head for every part (Sun et al., arXiv 1711.09349).
  normalize_code: the code has length 1.
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
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array, mode: BatchNormMode, deterministic: bool) -> AppearanceOutput:
    features = ResNet(self.stage_sizes, self.width, self.last_stride, self.dtype, name='backbone')(image, mode)
    parts = adaptive_pool(features, self.num_parts, self.pool)
    code = jnp.swapaxes(parts, 1, 2).reshape(image.shape[0], -1)  # channel-major: release fact 25
    if self.normalize_code:
      code = code / (jnp.linalg.norm(code, axis=-1, keepdims=True) + CODE_EPSILON)  # release fact 33

    def head(x, dropout, name):
      return Head(self.head_width, self.num_identities, dropout, dtype=self.dtype, name=name)(x, mode, deterministic)

    if self.style == 'PCB':
      judged = [head(parts[:, i], self.primary_dropout, f'part_head_{i}') for i in range(self.num_parts)]
      logits, feature = (jnp.stack(values, axis=1) for values in zip(*judged, strict=True))
      return AppearanceOutput(code, logits, None, feature, None)
    pooled = adaptive_pool(features, 1, self.pool)[:, 0]
    primary_logits, primary_feature = head(pooled, self.primary_dropout, 'primary_head')
    if self.style == 'normal':
      return AppearanceOutput(code, primary_logits, None, primary_feature, None)
    fine_logits, fine_feature = head(pooled, self.fine_dropout, 'fine_head')
    code = jax.lax.stop_gradient(code) if self.detach_code else code  # release fact 16
    return AppearanceOutput(code, primary_logits, fine_logits, primary_feature, fine_feature)


class TeacherCnn(nn.Module):
  """The plain baseline: image f[N, H, W, 3] -> logits f[N, K] and bottleneck f[N, head_width]."""

  stage_sizes: tuple[int, ...]
  width: int
  last_stride: int
  pool: str
  head_width: int
  num_identities: int
  dropout: float
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array, mode: BatchNormMode, deterministic: bool) -> tuple[Array, Array]:
    features = ResNet(self.stage_sizes, self.width, self.last_stride, self.dtype, name='backbone')(image, mode)
    pooled = adaptive_pool(features, 1, self.pool)[:, 0]
    return Head(self.head_width, self.num_identities, self.dropout, dtype=self.dtype, name='head')(
      pooled, mode, deterministic
    )
