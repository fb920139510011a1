"""The networks as functions of their parameters; what they compute is tested with each network."""

import jax
import numpy as np
import pytest

from dgnet_jax.models.build import make_networks
from tests.tiny_run import frozen, tiny_config


@pytest.mark.parametrize('gan_type', ['lsgan', 'wgan'])
def test_discriminator_features_are_those_of_every_layer_but_the_last(gan_type):
  config = tiny_config()
  config.discriminator.update(gan_type=gan_type, num_scales=1 if gan_type == 'wgan' else 2)
  config.data.image_size_hw = (64, 64) if gan_type == 'wgan' else (32, 16)
  networks = make_networks(frozen(config), num_identities=3)
  params = networks.init_discriminator(jax.random.key(0))
  images = jax.random.normal(jax.random.key(1), (2, *config.data.image_size_hw, 3))
  features = networks.discriminator_features(params, images)
  assert len(features) == sum(len(scale) - 1 for scale in params.values())  # each layer has parameters
  assert all(x.ndim == 4 and len(x) == 2 and x.shape[-1] > 1 for x in features)
  # An image's features are its own.
  alone = networks.discriminator_features(params, images[:1])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[:1], rtol=1e-4, atol=1e-6), alone, features)
