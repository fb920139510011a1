"""The loss terms of one iteration, without any optimizer.

Terms are arrays f[B, 2], one number per example and stream. The stream's index follows the release's a and b: for terms
on cross images it is that of the appearance donor, for the structure code that of the structure donor (release fact 5).
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp

from dgnet_jax.losses.adversarial import AdversarialLosses, feature_matching_loss, scores_and_penalty
from dgnet_jax.losses.distillation import soft_label_kl
from dgnet_jax.losses.identity import fine_grained_cross_entropy, identity_cross_entropy
from dgnet_jax.losses.reconstruction import l1_error, structural_dissimilarity
from dgnet_jax.models.networks import Networks
from dgnet_jax.pixels import clipped, enlarge, unit_range
from dgnet_jax.training import correspondence_terms
from dgnet_jax.training.forward import AppearanceCodes, Draws, Generated, frozen, taught_images
from dgnet_jax.training.metric_terms import RealLosses, pair_metric_terms
from dgnet_jax.types import ActiveTerms, Array, PairBatch, Params, Teacher

Terms = dict[str, Array]
Tree = TypeVar('Tree')
per_stream = functools.partial(jax.vmap, in_axes=1, out_axes=1)  # applies a loss of f[B, ...] to f[B, 2, ...]

DISCRIMINATOR_TERMS = ('discriminator', 'r1')


@flax.struct.dataclass
class StepInputs:
  """Inputs to the objective of generator and re-id network other than the parameters that it differentiates.

  Attributes:
    batch: the augmented images.
    codes: appearance codes of the clean images.
    reid_stats: running statistics of the re-id network after the clean calls.
    discriminator_params: already updated in this step.
    labels: f[B, 2, K], the teachers' labels by appearance donor; None if nothing is learned from cross images.
    draws: random draws of this step.
    teachers: frozen; they judge what design correspondence leaves outside the mask.
    match_features: compare the discriminator's features of rebuilt images.
    real_losses: label smoothing and metric losses on real images.
  """

  batch: PairBatch
  codes: AppearanceCodes
  reid_stats: Params
  discriminator_params: Params
  labels: Array | None
  draws: Draws
  teachers: Sequence[Teacher] = ()
  match_features: bool = flax.struct.field(pytree_node=False, default=False)  # type: ignore[no-untyped-call]
  real_losses: RealLosses = flax.struct.field(pytree_node=False, default=RealLosses())  # type: ignore[no-untyped-call]


def term_names(
  networks: Networks, active: ActiveTerms, *, taught: bool, match_features: bool = False, metric: Sequence[str] = ()
) -> tuple[str, ...]:
  """Returns the names of the terms of generator and re-id network in a phase.

  They are those of `generator_and_reid_terms` and, with design correspondence, of `correspondence_terms`.

  Args:
    networks: from `make_networks`.
    active: which ramped terms count.
    taught: True if there are teacher labels for cross images.
    match_features: as in `StepInputs`.
    metric: names of the metric losses.
  """
  names = ['positive_reconstruction', 'adversarial', 'cross_identity', 'identity', 'positive_identity']
  names += ['dissimilarity', *correspondence_terms.NAMES] if networks.generator.fetches else ['self_reconstruction']
  names += ['feature_matching'] if match_features else []
  names += ['structure_code', 'appearance_code'] if active.codes else []
  names += ['cycle'] if active.cycle else []
  names += ['cycle_dissimilarity'] if active.cycle and networks.generator.fetches else []
  has_fine_head = networks.appearance_encoder.style == 'AB'
  names += metric
  names += ['fine_identity', *(f'fine_{name}' for name in metric)] if active.teaching and has_fine_head else []
  names += ['primary_teaching'] if taught else []
  names += ['fine_teaching'] if taught and has_fine_head else []
  return tuple(names)


def discriminator_terms(
  networks: Networks, losses: AdversarialLosses, params: Params, real: Array, fake: Array, r1_weight: float
) -> Terms:
  """Computes the discriminator's terms (paper eq. 7, by default as least squares; release facts 14 and 15).

  Args:
    networks: from `make_networks`.
    losses: from `adversarial_losses`.
    params: parameters of the discriminator.
    real: f[B, 2, H, W, 3].
    fake: f[B, 2, H, W, 3]; no gradient reaches it.
    r1_weight: weight of the squared gradient norm on real images.

  Returns:
    discriminator and r1 (weighted), f[B, 2] each.
  """

  def loss_and_penalty(real: Array, fake: Array) -> tuple[Array, Array]:
    fake_scores = networks.discriminate(params, fake)
    scales = [scores_and_penalty(score_fn, real, losses.score_transform) for score_fn in networks.score_fns(params)]
    penalty = r1_weight * jnp.stack([penalty for _, penalty in scales]).sum(0)
    return losses.discriminator([scores for scores, _ in scales], fake_scores), penalty

  loss, penalty = _over_streams(networks, loss_and_penalty, real, frozen(fake))
  return {'discriminator': loss, 'r1': penalty}


def _over_streams(networks: Networks, function: Callable[..., Tree], *images: Array) -> Tree:
  """Applies a function of f[N, H, W, 3] to f[B, 2, H, W, 3], by stream if the discriminator mixes a call's images."""
  if networks.scores_depend_on_batch:
    by_stream: Tree = per_stream(function)(*images)
    return by_stream
  lead = images[0].shape[:2]
  result = function(*(image.reshape(-1, *image.shape[2:]) for image in images))
  unflattened: Tree = jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), result)
  return unflattened


def _reconstruction_terms(generated: Generated, image: Array) -> Terms:
  l1 = per_stream(l1_error)
  terms = {'positive_reconstruction': l1(generated.positive_reconstruction, image)}
  if generated.self_reconstruction is None:
    terms['dissimilarity'] = _dissimilarity(generated.positive_reconstruction, image)
  else:
    terms['self_reconstruction'] = l1(generated.self_reconstruction, image)
  return terms


def _dissimilarity(prediction: Array, target: Array) -> Array:
  return per_stream(structural_dissimilarity)(unit_range(prediction), unit_range(target))


@jax.named_scope('adversarial')
def _adversarial_terms(
  networks: Networks, losses: AdversarialLosses, discriminator_params: Params, generated: Generated
) -> Terms:
  def loss(fake: Array) -> Array:
    return losses.generator(networks.discriminate(frozen(discriminator_params), fake))

  return {'adversarial': _over_streams(networks, loss, generated.cross_by_appearance)}


@jax.named_scope('feature_matching')
def _feature_terms(networks: Networks, discriminator_params: Params, rebuilt: Array, image: Array) -> Terms:
  features = functools.partial(networks.discriminator_features, frozen(discriminator_params))

  def loss(rebuilt: Array, image: Array) -> Array:
    return feature_matching_loss(features(rebuilt), features(image))

  return {'feature_matching': _over_streams(networks, loss, rebuilt, frozen(image))}


def _identification(networks: Networks, logits: Array, identity: Array, smoothing: float = 0.0) -> Array:
  """Cross-entropy f[B, 2] of logits f[B, 2, K], or its mean over the parts of f[B, 2, P, K]."""
  split = networks.splits_classifiers
  cross_entropy = per_stream(functools.partial(identity_cross_entropy, split=split, smoothing=smoothing))
  if logits.ndim == identity.ndim + 1:
    single: Array = cross_entropy(logits, identity)
    return single
  over_parts = jax.vmap(cross_entropy, in_axes=(2, None), out_axes=2)
  mean: Array = over_parts(logits, identity).mean(axis=2)
  return mean


def _recovery_terms(
  networks: Networks,
  generated: Generated,
  generator_params: Params,
  reid_params: Params,
  inputs: StepInputs,
  active: ActiveTerms,
) -> Terms:
  """Re-encodes the cross images: their identity, their codes, and the cycle back to the original images."""
  # The release judges with a copy of the re-id network: gradients reach the image only, running statistics do not move,
  # dropout is off, and BatchNorm uses the batch (fact 17).
  seen = enlarge(generated.cross_by_appearance, networks.reid_scale)
  with jax.named_scope('cross_identity'):
    recovered, _ = networks.encode_appearance_train(frozen(reid_params), inputs.reid_stats, seen)
  terms = {'cross_identity': _identification(networks, recovered.primary_logits, inputs.batch.identity)}
  if not (active.codes or active.cycle):
    return terms

  def routed(flag: Array, value: Any) -> Any:
    """Returns `value`, with a gradient only if `flag` is True."""
    return jax.tree.map(lambda x: jnp.where(flag, x, frozen(x)), value)

  if networks.generator.fetches:
    # The way back: what is copied from the cross image is wrong exactly where clothes are. A gradient to that image
    # would teach the generator to leave clothes as they are. The donor is a real image, the positive.
    encoder_params, seen, appearance = generator_params, clipped(frozen(generated.cross)), generated.positive_appearance
  else:
    # Either the encoder learns from detached images, or the images learn through a frozen encoder (fact 18).
    train_encoder = inputs.draws.update_structure_encoder
    encoder_params = {'structure_encoder': routed(train_encoder, generator_params['structure_encoder'])}
    seen, appearance = routed(~train_encoder, generated.cross), recovered.code
  with jax.named_scope('structure_code'):
    recovered_structure = networks.encode_structure(encoder_params, seen, inputs.draws.cross_structure_key)
  if active.codes:
    codes = map(networks.generator.comparable, (recovered_structure, generated.structure_code))
    terms['structure_code'] = per_stream(l1_error)(*codes)
    # In style AB the recovered code is detached, so this term is only logged (fact 16).
    terms['appearance_code'] = per_stream(l1_error)(recovered.code, inputs.codes.image)
  if active.cycle:
    with jax.named_scope('cycle'):
      cycle = networks.decode(generator_params, recovered_structure, appearance)
    terms['cycle'] = per_stream(l1_error)(cycle, inputs.batch.image)
    if networks.generator.fetches:
      terms['cycle_dissimilarity'] = _dissimilarity(cycle, inputs.batch.image)
  return terms


def _reid_terms(
  networks: Networks, generated: Generated, reid_params: Params, inputs: StepInputs, active: ActiveTerms
) -> tuple[Terms, Params]:
  """Identification of real images, and learning from detached cross images if there are teacher labels."""
  batch, labels = inputs.batch, inputs.labels
  images = jnp.concatenate([batch.erased_image, batch.erased_positive], axis=1)
  real_key, cross_key = (None, None) if inputs.draws.dropout_key is None else jax.random.split(inputs.draws.dropout_key)
  with jax.named_scope('identity'):
    output, batch_stats = networks.encode_appearance_train(reid_params, inputs.reid_stats, images, real_key)
  losses, primary, fine = inputs.real_losses, output.primary_logits, output.fine_logits
  identify = functools.partial(
    _identification, networks, identity=batch.identity, smoothing=losses.settings.label_smoothing
  )
  terms = {'identity': identify(primary[:, :2]), 'positive_identity': identify(primary[:, 2:4])}
  terms |= pair_metric_terms(losses, output.primary_metric_feature, batch.identity)
  if active.teaching and fine is not None and output.fine_metric_feature is not None:
    terms['fine_identity'] = identify(fine[:, :2])
    fine_terms = pair_metric_terms(losses, output.fine_metric_feature, batch.identity)
    terms |= {f'fine_{name}': term for name, term in fine_terms.items()}
  if labels is None:
    return terms, batch_stats
  # A call of its own: the compiler finds the forward pass that `_recovery_terms` makes over the same images.
  cross = enlarge(taught_images(generated, batch), networks.reid_scale)
  with jax.named_scope('teaching'):
    output, batch_stats = networks.encode_appearance_train(reid_params, batch_stats, cross, cross_key)
  terms['primary_teaching'] = per_stream(soft_label_kl)(output.primary_logits, labels)
  if output.fine_logits is not None:
    structure_identity = batch.identity[:, ::-1]
    fine_cross_entropy = functools.partial(fine_grained_cross_entropy, split=networks.splits_classifiers)
    terms['fine_teaching'] = per_stream(fine_cross_entropy)(output.fine_logits, structure_identity)
  return terms, batch_stats


def generator_and_reid_terms(
  networks: Networks,
  losses: AdversarialLosses,
  generated: Generated,
  generator_params: Params,
  reid_params: Params,
  inputs: StepInputs,
  active: ActiveTerms,
) -> tuple[Terms, Params]:
  """Computes all terms that the generator and the re-id network minimize (paper eq. 1 to 9; release facts 9 to 20).

  Args:
    networks: from `make_networks`.
    losses: from `adversarial_losses`.
    generated: the forward pass with `generator_params`; its gradients belong to the generator.
    generator_params: parameters of the generator, for encoding and decoding a second time.
    reid_params: parameters of the appearance encoder.
    inputs: everything else.
    active: which ramped terms count.

  Returns:
    The terms of `term_names` but those of `correspondence_terms`, f[B, 2] each, and the running statistics of the re-id
    network after the step.
  """
  terms = _reconstruction_terms(generated, inputs.batch.image)
  terms |= _adversarial_terms(networks, losses, inputs.discriminator_params, generated)
  if inputs.match_features:
    rebuilt = generated.positive_reconstruction
    terms |= _feature_terms(networks, inputs.discriminator_params, rebuilt, inputs.batch.image)
  terms |= _recovery_terms(networks, generated, generator_params, reid_params, inputs, active)
  reid_terms, batch_stats = _reid_terms(networks, generated, reid_params, inputs, active)
  return terms | reid_terms, batch_stats


def stream_means(terms: Mapping[str, Array]) -> Terms:
  """Averages each term over the batch, to f[2]: the numbers that the release logs with _a and _b."""
  return {name: term.mean(0) for name, term in terms.items()}
