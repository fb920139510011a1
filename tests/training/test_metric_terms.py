"""Metric losses within an iteration: which embeddings are compared, and on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.network_schema import ReidConfig, TeacherConfig
from dgnet_jax.config.schema import WeightsConfig
from dgnet_jax.losses.metric import batch_hard_triplet_loss
from dgnet_jax.sharding import batch_sharding, make_mesh
from dgnet_jax.training.metric_terms import RealLosses, metric_names, metric_terms, pair_metric_terms

BOTH = RealLosses(ReidConfig(triplet_margin=0.7, circle_scale=4.0), ('triplet', 'circle'))


def test_losses_with_a_weight_are_computed():
  assert metric_names(WeightsConfig()) == metric_names(TeacherConfig()) == ()
  assert metric_names(WeightsConfig(triplet=0.1)) == ('triplet',)
  assert metric_names(TeacherConfig(triplet=1.0, circle=0.5)) == ('triplet', 'circle')


@pytest.mark.parametrize('field', ['triplet_margin', 'circle_margin', 'circle_scale'])
def test_margins_and_scale_are_those_of_the_settings(field):
  feature, identity = jax.random.normal(jax.random.key(0), (8, 3)), jnp.arange(8) % 4
  terms, changed = (
    metric_terms(('triplet', 'circle'), settings, feature, identity)
    for settings in (ReidConfig(), ReidConfig(**{field: 0.9}))
  )
  different = {name for name in terms if not np.allclose(terms[name], changed[name])}
  assert different == {field.split('_')[0]}


def test_images_and_positives_of_both_streams_are_compared():
  """By hand, on a line; stream b has the farthest positive of identity 0 and the nearest negatives of identity 1."""
  feature = jnp.array([[0.0, 3.0, 1.0, 3.5], [10.0, 8.0, 10.0, 12.0]])[..., None]  # images a and b, positives a and b
  identity = jnp.array([[0, 0], [1, 2]])
  # Identity 0 at 0, 1, 3 and 3.5; 1 twice at 10; 2 at 8 and 12.
  gaps = np.array([[3.5 - 8, 3 - 5, 2.5 - 7, 3.5 - 4.5], [0 - 2, 4 - 2, 0 - 2, 4 - 2]])
  loss = np.maximum(0, gaps + 2.5)
  losses = RealLosses(ReidConfig(triplet_margin=2.5), ('triplet',))
  terms = pair_metric_terms(losses, feature, identity)
  np.testing.assert_allclose(terms['triplet'], (loss[:, :2] + loss[:, 2:]) / 2)
  assert terms.keys() == {'triplet'}


def test_every_image_has_a_positive():
  feature = jax.random.normal(jax.random.key(0), (4, 4, 3))
  losses = RealLosses(ReidConfig(triplet_margin=100.0), ('triplet',))
  different_people = jnp.arange(8).reshape(4, 2)
  assert np.all(np.asarray(pair_metric_terms(losses, feature, different_people)['triplet']) > 50)
  assert not np.any(batch_hard_triplet_loss(feature[:, 0], different_people[:, 0], margin=100.0))


def test_devices_do_not_matter():
  feature = jax.random.normal(jax.random.key(0), (8, 4, 16))
  identity = jax.random.randint(jax.random.key(1), (8, 2), 0, 4)

  @jax.jit
  def terms(feature, identity):
    return jax.value_and_grad(lambda x: sum(term.sum() for term in pair_metric_terms(BOTH, x, identity).values()))(
      feature
    )

  alone = terms(feature, identity)
  shared = terms(*jax.device_put((feature, identity), batch_sharding(make_mesh())))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), alone, shared)
