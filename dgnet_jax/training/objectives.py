"""What one iteration computes and what it is judged by, without any optimiser.

Terms are arrays f[B, 2], one number per example and stream. A stream's index follows the release's a and b: for terms
on cross images it is the appearance donor, for the structure code the structure donor (release fact 5).
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dgnet_jax.losses.adversarial import AdversarialLosses, scores_and_penalty
from dgnet_jax.losses.distillation import soft_label_kl
from dgnet_jax.losses.identity import fine_grained_cross_entropy, identity_cross_entropy
from dgnet_jax.losses.reconstruction import l1_error
from dgnet_jax.models.build import Networks
from dgnet_jax.pixels import enlarge
from dgnet_jax.types import ActiveTerms, Array, PairBatch, Params

Terms = dict[str, Array]
frozen = jax.lax.stop_gradient
per_stream = functools.partial(jax.vmap, in_axes=1, out_axes=1)  # a loss of f[B, ...] applied to f[B, 2, ...]


@flax.struct.dataclass
class Draws:
  """What a step draws at random besides the augmentation.

  update_structure_encoder: bool[]; when true the structure-code loss trains the encoder on detached cross images,
  otherwise it trains the generator through a frozen encoder. *_dropout_key: None switches dropout off. *edge_key: of
  the noise on edge input, for the images and for the cross images; None leaves it out.
  """

  update_structure_encoder: Array
  dropout_key: Array | None = None
  teacher_dropout_key: Array | None = None
  edge_key: Array | None = None
  cross_edge_key: Array | None = None


@flax.struct.dataclass
class AppearanceCodes:
  """Appearance codes f[B, 2, F] of the images and of their positives; constants in style AB (release facts 4, 16)."""

  image: Array
  positive: Array


@flax.struct.dataclass
class Generated:
  """The forward pass; images f[B, 2, H, W, 3].

  cross is indexed by its structure donor: cross[:, 0] has structure 0 and appearance 1 (the release's x_ab).
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
  """Codes of the clean images under batch statistics, and the running statistics after those four calls."""
  images = enlarge(jnp.concatenate([batch.image, batch.positive], axis=1), networks.reid_scale)
  params = params if networks.trains_through_code else frozen(params)
  output, batch_stats = networks.encode_appearance_train(params, batch_stats, images)
  return AppearanceCodes(output.code[:, :2], output.code[:, 2:]), batch_stats


def generate(
  networks: Networks, params: Params, image: Array, codes: AppearanceCodes, edge_key: Array | None = None
) -> Generated:
  """Self-, same-person and cross-identity generation (paper section 3.1): one encoder call and one decoder call.

  Args:
    networks: from `make_networks`.
    params: of the generator.
    image: f[B, 2, H, W, 3].
    codes: of the same batch.
    edge_key: as in `Draws`.
  """
  structure = networks.encode_structure(params, image, edge_key)
  appearance = jnp.stack([codes.image, codes.positive, codes.image[:, ::-1]], axis=2)
  repeated = jnp.broadcast_to(structure[:, :, None], (*structure.shape[:2], 3, *structure.shape[2:]))
  decoded = networks.decode(params, repeated, appearance)
  return Generated(structure, decoded[:, :, 0], decoded[:, :, 1], decoded[:, :, 2])


def discriminator_terms(
  networks: Networks, losses: AdversarialLosses, params: Params, real: Array, fake: Array, r1_weight: float
) -> Terms:
  """What the discriminator minimises (paper eq. 7, by default as least squares; release facts 14 and 15).

  Args:
    networks: from `make_networks`.
    losses: from `adversarial_losses`.
    params: of the discriminator.
    real: f[B, 2, H, W, 3].
    fake: f[B, 2, H, W, 3], no gradient reaches it.
    r1_weight: weight of the squared gradient norm on real images.

  Returns:
    discriminator and r1 (weighted), f[B, 2] each.
  """

  def judge(real: Array, fake: Array) -> tuple[Array, Array]:
    fake_scores = networks.discriminate(params, fake)
    judged = [scores_and_penalty(score_fn, real, losses.penalized) for score_fn in networks.score_fns(params)]
    penalty = r1_weight * jnp.stack([penalty for _, penalty in judged]).sum(0)
    return losses.discriminator([scores for scores, _ in judged], fake_scores), penalty

  loss, penalty = _judged(networks, judge, real, frozen(fake))
  return {'discriminator': loss, 'r1': penalty}


def _judged(networks: Networks, judge: Callable[..., Any], *images: Array) -> Any:
  """A function of f[N, H, W, 3] on f[B, 2, H, W, 3]: all at once, or by stream where a call's images mix."""
  if networks.scores_need_batch:
    return per_stream(judge)(*images)
  lead = images[0].shape[:2]
  result = judge(*(image.reshape(-1, *image.shape[2:]) for image in images))
  return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), result)


def _reconstruction_terms(generated: Generated, image: Array) -> Terms:
  l1 = per_stream(l1_error)
  return {
    'self_reconstruction': l1(generated.self_reconstruction, image),
    'positive_reconstruction': l1(generated.positive_reconstruction, image),
  }


def _adversarial_terms(
  networks: Networks, losses: AdversarialLosses, discriminator_params: Params, generated: Generated
) -> Terms:
  def judge(fake: Array) -> Array:
    return losses.generator(networks.discriminate(frozen(discriminator_params), fake))

  return {'adversarial': _judged(networks, judge, generated.cross_by_appearance)}


def _identification(logits: Array, identity: Array) -> Array:
  """Cross-entropy f[B, 2] of logits f[B, 2, K], or the mean over the parts of f[B, 2, P, K]."""
  if logits.ndim == identity.ndim + 1:
    return per_stream(identity_cross_entropy)(logits, identity)
  over_parts = jax.vmap(per_stream(identity_cross_entropy), in_axes=(2, None), out_axes=2)
  return over_parts(logits, identity).mean(axis=2)


def _recovery_terms(
  networks: Networks,
  generator_params: Params,
  reid_params: Params,
  reid_stats: Params,
  generated: Generated,
  batch: PairBatch,
  codes: AppearanceCodes,
  draws: Draws,
  active: ActiveTerms,
) -> Terms:
  """Re-encodes the cross images: their identity, their codes, and the way back to the original image."""
  # The release judges by a copy of the re-id network: gradients reach the image, neither parameters nor statistics
  # move, dropout is off, and BatchNorm uses the batch (fact 17).
  seen = enlarge(generated.cross_by_appearance, networks.reid_scale)
  recovered, _ = networks.encode_appearance_train(frozen(reid_params), reid_stats, seen)
  terms = {'cross_identity': _identification(recovered.primary_logits, batch.identity)}
  if not (active.codes or active.cycle):
    return terms

  def routed(flag: Array, value: Any) -> Any:
    """`value`, with a gradient only where the flag is true."""
    return jax.tree.map(lambda x: jnp.where(flag, x, frozen(x)), value)

  # Either the encoder learns from detached images or the images learn through a frozen encoder (fact 18).
  train_encoder = draws.update_structure_encoder
  encoder_params = {'structure_encoder': routed(train_encoder, generator_params['structure_encoder'])}
  seen = routed(~train_encoder, generated.cross)
  recovered_structure = networks.encode_structure(encoder_params, seen, draws.cross_edge_key)
  if active.codes:
    terms['structure_code'] = per_stream(l1_error)(recovered_structure, generated.structure_code)
    # In style AB the recovered code is detached, so this one is only a number to watch (fact 16).
    terms['appearance_code'] = per_stream(l1_error)(recovered.code, codes.image)
  if active.cycle:
    cycle = networks.decode(generator_params, recovered_structure, recovered.code)
    terms['cycle'] = per_stream(l1_error)(cycle, batch.image)
  return terms


def taught_images(generated: Generated, batch: PairBatch) -> Array:
  """The cross images that the re-id network learns from, f[B, 2, H, W, 3] by appearance donor; constants."""
  return frozen(generated.cross_by_appearance if batch.true_cross is None else batch.true_cross)


def _reid_terms(
  networks: Networks,
  reid_params: Params,
  reid_stats: Params,
  generated: Generated,
  batch: PairBatch,
  labels: Array | None,
  dropout_key: Array | None,
  active: ActiveTerms,
) -> tuple[Terms, Params]:
  """Identification of real images, and learning from detached cross images when there are teacher labels."""
  images = [batch.erased_image, batch.erased_positive]
  if labels is not None:
    images.append(enlarge(taught_images(generated, batch), networks.reid_scale))
  output, batch_stats = networks.encode_appearance_train(
    reid_params, reid_stats, jnp.concatenate(images, axis=1), dropout_key
  )
  primary, fine = output.primary_logits, output.fine_logits
  terms = {
    'identity': _identification(primary[:, :2], batch.identity),
    'positive_identity': _identification(primary[:, 2:4], batch.identity),
  }
  if active.teaching and fine is not None:
    terms['fine_identity'] = per_stream(identity_cross_entropy)(fine[:, :2], batch.identity)
  if labels is not None:
    terms['primary_teaching'] = per_stream(soft_label_kl)(primary[:, 4:], labels)
  if labels is not None and fine is not None:
    structure_identity = batch.identity[:, ::-1]
    terms['fine_teaching'] = per_stream(fine_grained_cross_entropy)(fine[:, 4:], structure_identity)
  return terms, batch_stats


def generator_and_reid_terms(
  networks: Networks,
  generated: Generated,
  generator_params: Params,
  reid_params: Params,
  *,
  reid_stats: Params,
  losses: AdversarialLosses,
  discriminator_params: Params,
  batch: PairBatch,
  codes: AppearanceCodes,
  labels: Array | None,
  draws: Draws,
  active: ActiveTerms,
) -> tuple[Terms, Params]:
  """Every term that the generator and the re-id network minimise (paper eq. 1 to 9; release facts 9 to 20).

  Args:
    networks: from `make_networks`.
    generated: the forward pass, made with `generator_params`; gradients to it go on to the generator.
    generator_params: of structure encoder and decoder, for what is encoded and decoded again.
    reid_params: of the appearance encoder.
    reid_stats: its running statistics after the clean calls.
    losses: from `adversarial_losses`.
    discriminator_params: already updated in this step.
    batch: the input.
    codes: appearance codes of the clean images.
    labels: the teacher's, f[B, 2, K] by appearance donor; None leaves out all learning from cross images.
    draws: of this step.
    active: which ramped terms count.

  Returns:
    Terms f[B, 2] by name, and the re-id network's running statistics after the step.
  """
  terms = _reconstruction_terms(generated, batch.image)
  terms |= _adversarial_terms(networks, losses, discriminator_params, generated)
  terms |= _recovery_terms(
    networks,
    generator_params,
    reid_params,
    reid_stats,
    generated,
    batch,
    codes,
    draws,
    active,
  )
  reid_terms, batch_stats = _reid_terms(
    networks, reid_params, reid_stats, generated, batch, labels, draws.dropout_key, active
  )
  return terms | reid_terms, batch_stats


def stream_means(terms: Mapping[str, Array]) -> Terms:
  """Each term's mean over the batch, f[2]: the numbers that the release logs with _a and _b."""
  return {name: term.mean(0) for name, term in terms.items()}
