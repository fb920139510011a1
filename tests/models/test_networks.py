"""The networks as functions of their parameters; what they compute is tested with each network."""

import jax
import numpy as np
import pytest

from dgnet_jax.models.build import make_networks
from dgnet_jax.models.decoder import Decoder
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


@pytest.mark.parametrize('block', ['basic', 'series', 'parallel'])
def test_several_appearances_of_a_structure_equal_repeated_structures(block, x64):
  decoder = Decoder(num_res_blocks=2, mlp_width=6, block=block)
  structures, appearances = (
    np.random.default_rng(0).normal(size=(2, 4, 3, 8)),
    np.random.default_rng(1).normal(size=(6, 4)),
  )
  params = decoder.init(jax.random.key(0), structures, appearances[:2])

  def images_and_gradients(structures):
    def loss(params):
      images = decoder.apply(params, structures, appearances)
      return (images**2).sum(), images

    return jax.grad(loss, has_aux=True)(params)

  jax.tree.map(
    lambda actual, expected: np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9),
    images_and_gradients(structures),
    images_and_gradients(np.repeat(structures, 3, axis=0)),
  )
