"""Which parts each loss trains: in the release, and with the paper's reading (the code is not detached)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.losses.adversarial import adversarial_losses
from dgnet_jax.models.build import make_networks
from dgnet_jax.training.forward import Draws, appearance_codes, generate
from dgnet_jax.training.metric_terms import RealLosses
from dgnet_jax.training.objectives import StepInputs, generator_and_reid_terms, term_names
from dgnet_jax.types import ActiveTerms, PairBatch
from tests.training.test_variants import NUM_IDENTITIES, tiny_config

BATCH = 3
METRIC = ('triplet', 'circle')
EVERYTHING = ActiveTerms(codes=True, cycle=True, teaching=True)
GENERATOR, BACKBONE = {'structure_encoder', 'decoder'}, {'backbone'}
RELEASE = {
  'adversarial': GENERATOR,
  'feature_matching': GENERATOR,
  'self_reconstruction': GENERATOR,
  'positive_reconstruction': GENERATOR,
  'cycle': GENERATOR,
  'cross_identity': GENERATOR,
  'appearance_code': set(),
  'identity': BACKBONE | {'primary_head'},
  'positive_identity': BACKBONE | {'primary_head'},
  'fine_identity': BACKBONE | {'fine_head'},
  'triplet': BACKBONE | {'primary_head'},
  'circle': BACKBONE | {'primary_head'},
  'fine_triplet': BACKBONE | {'fine_head'},
  'fine_circle': BACKBONE | {'fine_head'},
  'primary_teaching': BACKBONE | {'primary_head'},
  'fine_teaching': BACKBONE | {'fine_head'},
}
TRAIN_ENCODER, FROZEN_ENCODER = {'structure_code': {'structure_encoder'}}, {'structure_code': GENERATOR}
# If the code is not detached, every loss on images made from it trains the backbone, and the loss on the recovered code
# trains the generator.
PAPER = RELEASE | {'appearance_code': GENERATOR | BACKBONE}
PAPER |= {
  name: RELEASE[name] | BACKBONE
  for name in (
    'adversarial',
    'feature_matching',
    'self_reconstruction',
    'positive_reconstruction',
    'cycle',
    'cross_identity',
  )
}


def gradient_table(config):
  """Returns a function from the draw of the structure encoder to the parts that each term's gradient reaches."""
  networks = make_networks(config, NUM_IDENTITIES)
  generator, discriminator = networks.init_generator(jax.random.key(0)), networks.init_discriminator(jax.random.key(1))
  reid, stats = networks.init_reid(jax.random.key(2))
  images = jax.random.normal(jax.random.key(3), (4, BATCH, 2, *config.data.image_size_hw, 3))
  batch = PairBatch(*images, identity=jnp.array([[0, 1], [2, 3], [4, 0]]))
  labels = jax.nn.softmax(jax.random.normal(jax.random.key(4), (BATCH, 2, NUM_IDENTITIES)))

  def terms_of(generator, reid, draws):
    codes, clean_stats = appearance_codes(networks, reid, stats, batch)
    generated = generate(networks, generator, batch, codes)
    losses = adversarial_losses(config.discriminator.gan_type, BATCH)
    inputs = StepInputs(
      batch,
      codes,
      clean_stats,
      discriminator,
      labels,
      draws,
      match_features=True,
      real_losses=RealLosses(config.reid, METRIC),
    )
    terms, _ = generator_and_reid_terms(networks, losses, generated, generator, reid, inputs, EVERYTHING)
    return {name: term.sum() for name, term in terms.items()}

  @jax.jit
  def gradients(chosen, draws):
    def total(generator, reid):
      return sum(chosen[name] * term for name, term in terms_of(generator, reid, draws).items())

    return jax.grad(total, argnums=(0, 1))(generator, reid)

  names = term_names(networks, EVERYTHING, taught=True, match_features=True, metric=METRIC)

  def table(train_encoder):
    result = {}
    for name in names:
      in_generator, in_reid = gradients({other: float(other == name) for other in names}, Draws(train_encoder))
      parts = in_generator | in_reid
      result[name] = {part for part, tree in parts.items() if any(np.any(x) for x in jax.tree.leaves(tree))}
    return result

  return table


@pytest.mark.long
@pytest.mark.parametrize(
  ('options', 'expected', 'frozen_encoder'),
  [({}, RELEASE, FROZEN_ENCODER), ({'reid.detach_code': False}, PAPER, {'structure_code': GENERATOR | BACKBONE})],
  ids=['release', 'paper'],
)
def test_gradients_reach_only_the_parts_that_each_loss_trains(options, expected, frozen_encoder):
  table = gradient_table(tiny_config(options))
  assert table(jnp.asarray(True)) == expected | TRAIN_ENCODER
  assert table(jnp.asarray(False)) == expected | frozen_encoder
