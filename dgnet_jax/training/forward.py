"""The forward pass of an iteration: appearance codes and generated images."""

import flax.struct
import jax
import jax.numpy as jnp

from dgnet_jax.models.networks import Networks
from dgnet_jax.pixels import enlarge
from dgnet_jax.types import Array, PairBatch, Params

frozen = jax.lax.stop_gradient


@flax.struct.dataclass
class Draws:
  """The random draws of a step, except those of the augmentation.

  Attributes:
    update_structure_encoder: bool[]. If True, the structure-code loss trains the encoder on detached cross images;
      otherwise it trains the generator through a frozen encoder.
    dropout_key: random key of the re-id network's dropout; None disables it.
    teacher_dropout_key: random key of the teachers' dropout; None disables it.
    edge_key: random key of the noise on edges of the images; None adds no noise.
    cross_edge_key: random key of the noise on edges of the cross images; None adds no noise.
  """

  update_structure_encoder: Array
  dropout_key: Array | None = None
  teacher_dropout_key: Array | None = None
  edge_key: Array | None = None
  cross_edge_key: Array | None = None


@flax.struct.dataclass
class AppearanceCodes:
  """Appearance codes; constants in style AB (release facts 4 and 16).

  Attributes:
    image: f[B, 2, F], of the images.
    positive: f[B, 2, F], of their positives.
  """

  image: Array
  positive: Array


@flax.struct.dataclass
class Generated:
  """The images that the generator makes from a batch, and their structure codes.

  Attributes:
    structure_code: codes of the images, with leading axes [B, 2].
    self_reconstruction: f[B, 2, H, W, 3], from the codes of the same image.
    positive_reconstruction: f[B, 2, H, W, 3], with the appearance code of the positive.
    cross: f[B, 2, H, W, 3], indexed by structure donor: cross[:, 0] has structure 0 and appearance 1 (the release's
      x_ab).
  """

  structure_code: Array
  self_reconstruction: Array
  positive_reconstruction: Array
  cross: Array

  @property
  def cross_by_appearance(self) -> Array:
    """The cross images indexed by their appearance donor (the release's x_ba, x_ab)."""
    return self.cross[:, ::-1]


def appearance_codes(
  networks: Networks, params: Params, batch_stats: Params, batch: PairBatch
) -> tuple[AppearanceCodes, Params]:
  """Encodes the clean images, normalized by batch statistics.

  Returns:
    The codes, and the running statistics after these four calls.
  """
  images = enlarge(jnp.concatenate([batch.image, batch.positive], axis=1), networks.reid_scale)
  params = params if networks.trains_through_code else frozen(params)
  output, batch_stats = networks.encode_appearance_train(params, batch_stats, images)
  return AppearanceCodes(output.code[:, :2], output.code[:, 2:]), batch_stats


def generate(
  networks: Networks, params: Params, image: Array, codes: AppearanceCodes, edge_key: Array | None = None
) -> Generated:
  """Self-, same-identity and cross-identity generation (paper section 3.1): one encoder call and one decoder call.

  Args:
    networks: from `make_networks`.
    params: parameters of the generator.
    image: f[B, 2, H, W, 3].
    codes: appearance codes of the same batch.
    edge_key: as in `Draws`.
  """
  structure = networks.encode_structure(params, image, edge_key)
  appearance = jnp.stack([codes.image, codes.positive, codes.image[:, ::-1]], axis=2)
  repeated = jnp.broadcast_to(structure[:, :, None], (*structure.shape[:2], 3, *structure.shape[2:]))
  decoded = networks.decode(params, repeated, appearance)
  return Generated(structure, decoded[:, :, 0], decoded[:, :, 1], decoded[:, :, 2])


def taught_images(generated: Generated, batch: PairBatch) -> Array:
  """Returns the cross images f[B, 2, H, W, 3] that the re-id network learns from, by appearance donor; constants."""
  return frozen(generated.cross_by_appearance if batch.cross_ground_truth is None else batch.cross_ground_truth)
