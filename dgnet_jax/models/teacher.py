"""The teacher: a plain re-id network (release facts 31 to 34)."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax.sharding import Mesh

from dgnet_jax.models.appearance_encoder import Head, HeadOutput
from dgnet_jax.models.backbones import make_backbone
from dgnet_jax.models.batch_norm import BatchNormMode
from dgnet_jax.models.initialization import initial_variables
from dgnet_jax.models.pooling import StripePool
from dgnet_jax.types import Array, Params

NORMS = ('running', 'batch')


class TeacherCnn(nn.Module):
  """A plain re-id baseline: image f[N, H, W, 3] -> HeadOutput.

  Attributes:
    stage_sizes, width, last_stride, backbone: as in `make_backbone`.
    pool: as in `StripePool`.
    neck, split_over: as in `Head`.
  """

  stage_sizes: tuple[int, ...]
  width: int
  last_stride: int
  pool: str
  head_width: int
  num_identities: int
  dropout: float
  backbone: str = 'resnet'
  neck: str = 'release'
  split_over: Mesh | None = None
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, image: Array, mode: BatchNormMode, deterministic: bool) -> HeadOutput:
    backbone = make_backbone(self.backbone, self.stage_sizes, self.width, self.last_stride, self.dtype)
    pooled = StripePool(self.pool, name='pool')(backbone(image, mode), 1)[:, 0]
    head = Head(
      self.head_width, self.num_identities, self.dropout, self.split_over, self.neck, dtype=self.dtype, name='head'
    )
    return head(pooled, mode, deterministic)


@flax.struct.dataclass
class TeacherOutput:
  """Outputs of a teacher.

  Attributes:
    logits: f[..., K].
    feature: f[..., D], the embedding: the head's bottleneck (neck bnneck: the pooled feature) after BatchNorm.
    metric_feature: f[..., D], the same before BatchNorm, for metric losses, such as triplet or circle.
  """

  logits: Array
  feature: Array
  metric_feature: Array


@dataclasses.dataclass(frozen=True)
class TeacherNetwork:
  """The plain re-id CNN whose soft labels supervise the primary head; params are {'backbone', 'head'}, and
  'pool' with pool gem.
  """

  network: TeacherCnn
  image_size_hw: tuple[int, int]
  reid_scale: int

  @property
  def num_identities(self) -> int:
    """Number of classes."""
    return self.network.num_identities

  @property
  def splits_classifiers(self) -> bool:
    """True if the classifier, and so the logits, are split over devices."""
    return self.network.split_over is not None

  def splitting_classifiers(self, mesh: Mesh) -> 'TeacherNetwork':
    """Returns the same network with its classifier split over the axis 'model' of a mesh."""
    return dataclasses.replace(self, network=self.network.clone(split_over=mesh))

  def init(self, key: Array) -> tuple[Params, Params]:
    """Initializes (params, batch_stats)."""
    height, width = self.image_size_hw
    image = jnp.zeros((1, height * self.reid_scale, width * self.reid_scale, 3))
    variables = initial_variables(self.network, key, image, mode=BatchNormMode(), deterministic=True)
    return variables['params'], variables['batch_stats']

  def apply(
    self, params: Params, batch_stats: Params, image: Array, *, norm: str = 'running', dropout_key: Array | None = None
  ) -> tuple[TeacherOutput, Params]:
    """Applies the teacher to images at the re-id networks' input size.

    Args:
      params: parameters of the teacher.
      batch_stats: running statistics.
      image: f[..., rH, rW, 3]; with norm 'batch', f[B, G, rH, rW, 3].
      norm: 'running' normalizes with the running statistics; 'batch' normalizes each of G groups with its own batch
        statistics and updates the running ones.
      dropout_key: random key of dropout; None disables it.

    Returns:
      TeacherOutput with the image's leading axes, and the new running statistics (unchanged with norm 'running').

    Raises:
      ValueError: the norm is unknown.
    """
    if norm not in NORMS:
      raise ValueError(f'{norm=}: must be one of {NORMS}')
    mode = BatchNormMode(running=norm == 'running', calls=image.shape[1] if norm == 'batch' else 1)
    head, updated = self.network.apply(
      {'params': params, 'batch_stats': batch_stats},
      image.reshape(-1, *image.shape[-3:]),
      mode=mode,
      deterministic=dropout_key is None,
      rngs=None if dropout_key is None else {'dropout': dropout_key},
      mutable=['batch_stats'],
    )
    output = TeacherOutput(*(x.reshape(*image.shape[:-3], -1) for x in head))
    return output, updated.get('batch_stats', batch_stats)
