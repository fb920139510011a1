"""The forward pass of an iteration: appearance codes and generated images."""

import flax.struct
import jax
import jax.numpy as jnp

from dgnet_jax.models.generators import Codes, CorrespondenceGenerator
from dgnet_jax.models.networks import Networks
from dgnet_jax.pixels import enlarge
from dgnet_jax.types import Array, PairBatch, Params

frozen = jax.lax.stop_gradient


@flax.struct.dataclass
class Draws:
  """The random draws of a step, except those of the augmentation.

  Attributes:
    update_structure_encoder: bool[]; design adain only. If True, the structure-code loss trains the encoder on detached
      cross images; otherwise it trains the generator through a frozen encoder.
    dropout_key: random key of the re-id network's dropout; None disables it.
    teacher_dropout_key: random key of the teachers' dropout; None disables it.
    structure_key: random key of the structure encoder's variations of the images; None varies nothing.
    cross_structure_key: the same for the cross images.
  """

  update_structure_encoder: Array
  dropout_key: Array | None = None
  teacher_dropout_key: Array | None = None
  structure_key: Array | None = None
  cross_structure_key: Array | None = None


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
class Fetches:
  """What design correspondence fetched and masked, for its own terms.

  Attributes:
    moved_logits: f[B, 2, Q, h, w], attention of the Q = h w cells of the moved copy to the cells of the image.
    moved_pixels: f[B, 2, H, W, 3], fetched from the image for the moved copy.
    positive_pixels: f[B, 2, H, W, 3], fetched from the positive for the image.
    moved_mask: f[B, 2, H, W, 1], of the moved copy.
    mask: f[B, 2, H, W, 1], of the image.
  """

  moved_logits: Array
  moved_pixels: Array
  positive_pixels: Array
  moved_mask: Array
  mask: Array


@flax.struct.dataclass
class Generated:
  """The images that the generator makes from a batch, and their codes.

  Attributes:
    structure_code: codes of the images, with leading axes [B, 2].
    self_reconstruction: f[B, 2, H, W, 3], from the codes of the same image; None in design correspondence.
    positive_reconstruction: f[B, 2, H, W, 3], with the appearance code of the positive.
    cross: f[B, 2, H, W, 3], indexed by structure donor: cross[:, 0] has structure 0 and appearance 1 (the release's
      x_ab).
    positive_appearance: the generator's appearance codes of the positives, with leading axes [B, 2].
    fetches: None in design adain.
  """

  structure_code: Codes
  self_reconstruction: Array | None
  positive_reconstruction: Array
  cross: Array
  positive_appearance: Codes
  fetches: Fetches | None = None

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
  networks: Networks, params: Params, batch: PairBatch, codes: AppearanceCodes, key: Array | None = None
) -> Generated:
  """Self-, same-identity and cross-identity generation (paper section 3.1): one encoder call and one decoder call.

  Args:
    networks: from `make_networks`.
    params: parameters of the generator.
    batch: the augmented images.
    codes: appearance codes of the same batch.
    key: as `structure_key` in `Draws`.

  Raises:
    ValueError: design correspondence without `batch.moved`.
  """
  if isinstance(networks.generator, CorrespondenceGenerator):
    return _fetch_and_refine(networks, networks.generator, params, batch, codes, key)
  structure = networks.encode_structure(params, batch.image, key)
  appearance = jnp.stack([codes.image, codes.positive, codes.image[:, ::-1]], axis=2)
  decoded = networks.generator.decode(params, _flat(structure, 2), _flat(appearance, 3))
  decoded = decoded.reshape(*appearance.shape[:3], *decoded.shape[1:])
  return Generated(structure, decoded[:, :, 0], decoded[:, :, 1], decoded[:, :, 2], codes.positive)


def _fetch_and_refine(
  networks: Networks,
  generator: CorrespondenceGenerator,
  params: Params,
  batch: PairBatch,
  codes: AppearanceCodes,
  key: Array | None,
) -> Generated:
  """Generates with design correspondence; the moved copy is only matched and fetched for, not generated."""
  if batch.moved is None:
    raise ValueError('design correspondence needs batch.moved')
  sources = jnp.stack([batch.image, batch.positive, batch.moved.image], axis=2)
  encoded = networks.encode_structure(params, sources, key)
  structure, positive, moved = (jax.tree.map(lambda x, i=i: x[:, :, i], encoded) for i in range(3))
  appearance, positive_appearance = (
    networks.appearance_code_of(structure, codes.image),
    networks.appearance_code_of(positive, codes.positive),
  )
  other = jax.tree.map(lambda x: x[:, ::-1], appearance)

  # Three of each: the image from its positive, the cross image, the moved copy from the image.
  structures, appearances = _stacked(structure, structure, moved), _stacked(positive_appearance, other, appearance)
  appearances = generator.relit(params, _flat(structures, 3), _flat(appearances, 3))
  fetched = generator.fetched(params, _flat(structures, 3), appearances)
  appearances = jax.tree.map(lambda x: x.reshape(*batch.identity.shape, 3, *x.shape[1:]), appearances)
  fetched = jax.tree.map(lambda x: x.reshape(*batch.identity.shape, 3, *x.shape[1:]), fetched)
  generated = _flat(jax.tree.map(lambda x: x[:, :, :2], (structures, appearances, fetched)), 3)
  images = generator.refined(params, *generated).image
  images = images.reshape(*batch.identity.shape, 2, *images.shape[1:])
  fetches = Fetches(
    moved_logits=fetched.logits[:, :, 2, :, 0],
    moved_pixels=fetched.pixels[:, :, 2],
    positive_pixels=fetched.pixels[:, :, 0],
    moved_mask=generator.mask(moved),
    mask=generator.mask(structure),
  )
  return Generated(structure, None, images[:, :, 0], images[:, :, 1], positive_appearance, fetches)


def _stacked(*trees: Codes) -> Codes:
  """Stacks codes along a new axis 2."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=2), *trees)


def _flat(tree: Codes, num_leading: int) -> Codes:
  """Joins the leading axes of all leaves."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[num_leading:]), tree)


def taught_images(generated: Generated, batch: PairBatch) -> Array:
  """Returns the cross images f[B, 2, H, W, 3] that the re-id network learns from, by appearance donor; constants."""
  return frozen(generated.cross_by_appearance if batch.cross_ground_truth is None else batch.cross_ground_truth)
