"""Initial variables: the same numbers, to rounding, however they are compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models import initialization
from dgnet_jax.models.build import make_networks, make_teacher_network
from tests.tiny_run import correspondence_config, frozen, tiny_config


def initial_weights(config):
  config = frozen(config)
  networks = make_networks(config, num_identities=3)
  key = jax.random.key(0)
  return (
    networks.init_generator(key),
    networks.init_discriminator(key),
    networks.init_reid(key),
    make_teacher_network(config, num_identities=3).init(key),
  )


@pytest.mark.parametrize('make_config', [tiny_config, correspondence_config])
def test_fast_compilation_changes_rounding_only(make_config, monkeypatch):
  fast = initial_weights(make_config())
  monkeypatch.setattr(initialization, 'INITIALIZATION', {})
  for weight, other in zip(jax.tree.leaves(fast), jax.tree.leaves(initial_weights(make_config())), strict=True):
    np.testing.assert_allclose(weight, other, rtol=2e-6, atol=1e-7)


def test_shapes_can_be_had_without_computing():
  networks = make_networks(frozen(tiny_config()), num_identities=3)
  shapes = jax.eval_shape(networks.init_generator, jax.random.key(0))
  weights = networks.init_generator(jax.random.key(0))
  assert jax.tree.map(jnp.shape, weights) == jax.tree.map(lambda x: x.shape, shapes)
