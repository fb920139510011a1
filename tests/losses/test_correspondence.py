import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.losses.correspondence import divergence_from_uniform, matching_cross_entropy, weighted_l1


def test_matching_at_a_cell_is_its_cross_entropy():
  logits = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  place = np.array([[[0, 0], [3, 4], [1, 2]], [[2, 2], [0, 4], [3, 0]]], np.float32)
  weight = np.array([[1, 0, 0], [0, 2, 6]], np.float32)
  log_probs = jax.nn.log_softmax(logits.reshape(2, 3, -1)).reshape(logits.shape)
  expected = [-log_probs[0, 0, 0, 0], -(2 * log_probs[1, 1, 0, 4] + 6 * log_probs[1, 2, 3, 0]) / 8]
  np.testing.assert_allclose(matching_cross_entropy(logits, place, weight), expected, rtol=1e-5)


def test_matching_between_cells_is_bilinear_and_outside_nearest():
  logits = np.random.default_rng(1).normal(size=(1, 1, 3, 3)).astype(np.float32)
  log_probs = jax.nn.log_softmax(logits.reshape(-1)).reshape(3, 3)
  one = jnp.ones((1, 1))
  between = matching_cross_entropy(logits, jnp.array([[[0.25, 1.5]]]), one)
  expected = -(0.75 * log_probs[0, 1:].mean() + 0.25 * log_probs[1, 1:].mean())
  np.testing.assert_allclose(between, [expected], rtol=1e-5)
  outside = matching_cross_entropy(logits, jnp.array([[[-4.0, 7.0]]]), one)
  np.testing.assert_allclose(outside, [-log_probs[0, 2]], rtol=1e-5)


def test_matching_does_not_train_its_weight():
  logits, place = jnp.zeros((1, 2, 2, 2)).at[0, 0, 0, 0].set(3), jnp.zeros((1, 2, 2))
  gradient = jax.grad(lambda weight: matching_cross_entropy(logits, place, weight).sum())(jnp.array([[1.0, 2.0]]))
  assert not gradient.any()


@pytest.mark.parametrize('place', [(1, 2, 3), (1, 3, 2)])
def test_matching_refuses_other_shapes(place):
  with pytest.raises(ValueError, match='place'):
    matching_cross_entropy(jnp.zeros((1, 2, 4, 4)), jnp.zeros(place), jnp.ones((1, 2)))


def test_weighted_l1():
  prediction, target = jnp.array([[[[1.0, 3.0]], [[5.0, 5.0]]]]), jnp.zeros((1, 2, 1, 2))
  weight = jnp.array([[[[1.0]], [[0.5]]]])
  assert weighted_l1(prediction, target, weight).tolist() == [(1 + 3 + 2.5 + 2.5) / 4]
  gradients = jax.grad(lambda *x: weighted_l1(*x).sum(), argnums=(0, 1, 2))(prediction, target, weight)
  assert gradients[0].any() and not gradients[1].any() and not gradients[2].any()
  with pytest.raises(ValueError, match='weight'):
    weighted_l1(prediction, target, jnp.ones((1, 2, 1, 2)))


def test_divergence_from_uniform_is_zero_where_nobody_is_recognized():
  logits = jnp.array([[2.0, 2.0, 2.0], [0.0, 0.0, 9.0]])
  nobody, somebody = divergence_from_uniform(logits)
  assert abs(nobody) < 1e-6 and somebody > 1
  probs = jax.nn.softmax(logits[1])
  np.testing.assert_allclose(somebody, (jnp.log(1 / 3) - jnp.log(probs)).mean(), rtol=1e-5)
  with pytest.raises(ValueError, match='logits'):
    divergence_from_uniform(jnp.zeros(3))
