"""The arrays that travel between rooms, with their shapes.

Axis names: B examples of a batch, 2 the two independently drawn streams (a swap is `x[:, ::-1]`), H and W pixels,
K identities. Images are normalised with the ImageNet mean and deviation unless a name says pixels (uint8, 0..255).
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax

Array = jax.Array
Params = Mapping[str, Any]


@flax.struct.dataclass
class PixelBatch:
  """What a source yields, before augmentation.

  image: u8[B, 2, H, W, 3]. positive: u8[B, 2, H, W, 3], another image of the same person (the image itself if there
  is none). identity: i32[B, 2], class index in [0, K). true_cross: u8[B, 2, H, W, 3], the true cross images by
  appearance donor; None where they are not wanted (`teaching.images`).
  """

  image: Array
  positive: Array
  identity: Array
  true_cross: Array | None = None


@flax.struct.dataclass
class PairBatch:
  """One step's input.

  image, positive: f32[B, 2, H, W, 3]. erased_image, erased_positive: the same images after random erasing, f32[B,
  2, rH, rW, 3] at the size that the re-id network sees (r times larger, `Networks.reid_scale`). identity: i32[B, 2].
  true_cross: f32[B, 2, H, W, 3] or None.
  """

  image: Array
  positive: Array
  erased_image: Array
  erased_positive: Array
  identity: Array
  true_cross: Array | None = None


@flax.struct.dataclass
class AppearanceOutput:
  """What the appearance encoder says of images of any leading shape `...`.

  code: f32[..., parts * channels], channel-major (release fact 25). *_logits: f32[..., K]. *_feature: f32[..., D], the
  head's bottleneck after its BatchNorm and before dropout; the test embedding is made of these. Style PCB has
  primary_logits f32[..., parts, K] and primary_feature f32[..., parts, D]; only style AB has fine_*.
  """

  code: Array
  primary_logits: Array
  fine_logits: Array | None
  primary_feature: Array
  fine_feature: Array | None


@flax.struct.dataclass
class Teacher:
  """A frozen teacher: an argument of the step, never part of the state."""

  params: Params
  batch_stats: Params


@flax.struct.dataclass
class NetworkState:
  """One optimiser's networks. batch_stats is empty for networks without BatchNorm."""

  params: Params
  batch_stats: Params
  opt_state: Any


@flax.struct.dataclass
class TrainState:
  """Everything a run needs to go on.

  step: i32[], iterations done. generator.params has `structure_encoder` and `decoder`. rng: typed base key; what a
  step draws comes from `fold_in(rng, step)`.
  """

  step: Array
  generator: NetworkState
  discriminator: NetworkState
  reid: NetworkState
  rng: Array


@flax.struct.dataclass
class ActiveTerms:
  """Which ramped terms have a weight above 0; static, so a step pays only for what counts."""

  codes: bool = flax.struct.field(pytree_node=False, default=False)
  cycle: bool = flax.struct.field(pytree_node=False, default=False)
  teaching: bool = flax.struct.field(pytree_node=False, default=False)
