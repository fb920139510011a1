"""The backbones of the re-id network and of the teacher, by name."""

import flax.linen as nn
import jax.numpy as jnp

from dgnet_jax.models.osnet import OSNet
from dgnet_jax.models.resnet import ResNet

# OSNet's cells are 16 pixels apart. Its padded windows are centered at multiples of 4 pixels, and the 2x2 windows that
# follow between two of those: 2 pixels further, then 4.
OSNET_CELLS = (16, 6)


def make_backbone(
  kind: str, stage_sizes: tuple[int, ...], width: int, last_stride: int, dtype: jnp.dtype | None
) -> nn.Module:
  """Returns the part `backbone` of a network, to be called with (image, mode); see `ResNet` and `OSNet`.

  Args:
    kind: resnet, resnet_ibn_a or osnet.
    stage_sizes: number of blocks of each stage.
    width: channels of the stem.
    last_stride: stride of the last stage; 1 for osnet.
    dtype: what convolutions compute in.
  """
  if kind == 'osnet':
    return OSNet(stage_sizes, width, dtype, name='backbone')
  return ResNet(stage_sizes, width, last_stride, dtype, instance_norm=kind == 'resnet_ibn_a', name='backbone')


def cells(kind: str, stage_sizes: tuple[int, ...], last_stride: int) -> tuple[int, int]:
  """Returns the pixels from one cell of the last map to the next, and the pixel at the center of cell 0."""
  return OSNET_CELLS if kind == 'osnet' else (ResNet.stride(stage_sizes, last_stride), 0)
