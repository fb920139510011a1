"""Arrays and parameters that cross module boundaries, with their shapes.

Axis names: B examples of a batch, 2 independently drawn streams (a swap is `x[:, ::-1]`), H rows and W columns of
pixels, K identities. Images are normalized with ImageNet's mean and standard deviation unless a name says pixels
(uint8, 0 to 255).
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array
Params = Mapping[str, Any]


def at_least_float32(x: Array) -> Array:
  """Casts to float32 unless `x` is wider; sums and statistics in bfloat16 would lose too many digits."""
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@flax.struct.dataclass
class PixelBatch:
  """A batch as a data source yields it, before augmentation.

  Attributes:
    image: u8[B, 2, H, W, 3].
    positive: u8[B, 2, H, W, 3], another image of the same identity, or the image itself if there is no other.
    identity: i32[B, 2], class index in [0, K).
    cross_ground_truth: u8[B, 2, H, W, 3], rendered ground truth of the cross images, indexed by appearance donor; None
      unless `teaching.images` is ground_truth.
  """

  image: Array
  positive: Array
  identity: Array
  cross_ground_truth: Array | None = None


@flax.struct.dataclass
class MovedCopy:
  """Images, moved at random, and where their pixels come from.

  Attributes:
    image: f32[B, 2, H, W, 3], normalized.
    place: f32[B, 2, H, W, 2], (row, column) of each pixel in the original, in pixels; outside of it where the copy
      shows what the original does not.
  """

  image: Array
  place: Array


@flax.struct.dataclass
class PairBatch:
  """The augmented input of one training step.

  Attributes:
    image: f32[B, 2, H, W, 3].
    positive: f32[B, 2, H, W, 3], another image of the same identity.
    erased_image: f32[B, 2, rH, rW, 3], `image` after random erasing, at the re-id network's input size (r is
      `Networks.reid_scale`).
    erased_positive: f32[B, 2, rH, rW, 3], the same for `positive`.
    identity: i32[B, 2], class index in [0, K).
    cross_ground_truth: f32[B, 2, H, W, 3] or None, as in `PixelBatch`.
    moved: a moved copy of `image`; None unless the generator's design is correspondence.
  """

  image: Array
  positive: Array
  erased_image: Array
  erased_positive: Array
  identity: Array
  cross_ground_truth: Array | None = None
  moved: MovedCopy | None = None


@flax.struct.dataclass
class AppearanceOutput:
  """Outputs of the appearance encoder for images with leading axes `...`.

  Attributes:
    code: f32[..., parts * channels], the appearance code, channel-major (release fact 25).
    primary_logits: f32[..., K]; style PCB: f32[..., parts, K].
    fine_logits: f32[..., K]; None unless the style is AB.
    primary_feature: f32[..., D], the primary head's bottleneck (neck bnneck: its input) after BatchNorm and before
      dropout; style PCB: f32[..., parts, D]. The features make up the test embedding.
    fine_feature: f32[..., D], the same of the fine-grained head; None unless the style is AB.
    primary_metric_feature: as `primary_feature`, but before that BatchNorm: for metric losses, such as triplet or
      circle. With neck bnneck it is the pooled feature.
    fine_metric_feature: the same of the fine-grained head, equal to it with neck bnneck; None unless the style is AB.
  """

  code: Array
  primary_logits: Array
  fine_logits: Array | None
  primary_feature: Array
  fine_feature: Array | None
  primary_metric_feature: Array
  fine_metric_feature: Array | None


@flax.struct.dataclass
class Teacher:
  """Variables of a frozen teacher; an argument of the training step, not part of its state."""

  params: Params
  batch_stats: Params


@flax.struct.dataclass
class NetworkState:
  """Variables that one optimizer updates.

  Attributes:
    params: trainable parameters.
    batch_stats: running statistics of BatchNorm; empty for networks without BatchNorm.
    opt_state: state of the optimizer.
  """

  params: Params
  batch_stats: Params
  opt_state: Any


@flax.struct.dataclass
class TrainState:
  """Everything that a checkpoint needs to resume a run.

  Attributes:
    step: i32[], completed iterations.
    generator: params are {'structure_encoder', 'decoder'}, or those of design correspondence.
    discriminator: params are {'scale_0', 'scale_1', ...}.
    reid: the appearance encoder, which is also the re-id network.
    rng: typed base key; step n draws from `fold_in(rng, n)`.
  """

  step: Array
  generator: NetworkState
  discriminator: NetworkState
  reid: NetworkState
  rng: Array


@dataclasses.dataclass(frozen=True)
class ActiveTerms:
  """What a step trains, and which ramped terms count; a static argument, so that a step computes nothing else.

  Attributes:
    generator: generator and discriminator; False leaves them as they are.
    codes: reconstruction of structure and appearance codes.
    cycle: reconstruction of the original images from the codes of cross images.
    teaching: re-id losses on generated images, and the fine-grained head.
  """

  generator: bool = True
  codes: bool = False
  cycle: bool = False
  teaching: bool = False
