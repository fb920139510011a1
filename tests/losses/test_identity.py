"""Cross-entropy of identities."""

import functools

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dgnet_jax.losses.identity import fine_grained_cross_entropy, identity_cross_entropy

LOSSES = [
  functools.partial(loss, split=split)
  for loss in (identity_cross_entropy, fine_grained_cross_entropy)
  for split in (False, True)
]


@pytest.mark.parametrize('loss', LOSSES, ids=lambda loss: f'{loss.func.__name__}-{loss.keywords["split"]}')
class TestCrossEntropy:
  def test_value_by_hand(self, loss):
    logits = jnp.log(jnp.array([[1.0, 2.0, 5.0], [2.0, 2.0, 4.0]]))
    np.testing.assert_allclose(loss(logits, jnp.array([1, 2])), np.log([4.0, 2.0]), rtol=1e-6)

  def test_large_logits_give_finite_losses(self, loss):
    np.testing.assert_allclose(loss(jnp.array([[1e4, 0.0]]), jnp.array([1])), [1e4])

  def test_jit_and_vmap(self, loss):
    logits = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    identity = np.array([[0, 4], [1, 3], [2, 2]])
    streams = jax.jit(jax.vmap(loss, in_axes=1, out_axes=1))(logits, identity)
    for i in range(2):
      np.testing.assert_allclose(streams[:, i], loss(jnp.asarray(logits[:, i]), jnp.asarray(identity[:, i])), rtol=1e-6)

  @pytest.mark.usefixtures('x64')
  def test_gradient_and_precision(self, loss):
    logits, identity = np.random.default_rng(1).normal(size=(3, 4)), jnp.array([3, 0, 1])
    check_grads(lambda x: loss(x, identity), (logits,), order=1)
    assert loss(jnp.asarray(logits), identity).dtype == 'float64'
    assert loss(jnp.asarray(logits, 'bfloat16'), identity).dtype == 'float32'

  @pytest.mark.parametrize(('logits', 'identity'), [((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 2, 3), (2,))])
  def test_wrong_shapes_are_reported(self, loss, logits, identity):
    with pytest.raises(ValueError, match='logits.shape=.* identity.shape='):
      loss(jnp.zeros(logits), jnp.zeros(identity, int))

  def test_identities_must_be_integers(self, loss):
    with pytest.raises(ValueError, match='float32'):
      loss(jnp.zeros((2, 3)), jnp.zeros(2))


class TestLabelSmoothing:
  LOGITS = jnp.log(jnp.array([[1.0, 2.0, 5.0], [2.0, 2.0, 4.0]]))
  IDENTITY = jnp.array([1, 2])

  @pytest.mark.parametrize('split', [False, True])
  def test_value_by_hand(self, split):
    """Targets 0.1, 0.8, 0.1 and 0.1, 0.1, 0.8."""
    expected = -0.1 * np.log([1 / 8, 2 / 8]) - [0.8, 0.1] * np.log([2 / 8, 2 / 8]) - [0.1, 0.8] * np.log([5 / 8, 4 / 8])
    loss = identity_cross_entropy(self.LOGITS, self.IDENTITY, split=split, smoothing=0.3)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)

  def test_without_smoothing_the_program_is_the_same(self):
    programs = [
      str(jax.make_jaxpr(functools.partial(identity_cross_entropy, **options))(self.LOGITS, self.IDENTITY))
      for options in ({}, {'smoothing': 0.0}, {'smoothing': 0.1})
    ]
    assert programs[0] == programs[1] != programs[2]

  @pytest.mark.usefixtures('x64')
  def test_gradient(self):
    logits = np.random.default_rng(1).normal(size=(2, 3))
    check_grads(lambda x: identity_cross_entropy(x, self.IDENTITY, smoothing=0.1), (logits,), order=1)
    smooth = jax.grad(lambda x: identity_cross_entropy(x, self.IDENTITY, smoothing=0.3).sum())
    best = jnp.log(jnp.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]))
    np.testing.assert_allclose(smooth(best), np.zeros((2, 3)), atol=1e-12)  # the minimum is at the smoothed target

  @pytest.mark.parametrize('smoothing', [-0.1, 1.0])
  def test_values_out_of_range_are_refused(self, smoothing):
    with pytest.raises(ValueError, match='smoothing='):
      identity_cross_entropy(self.LOGITS, self.IDENTITY, smoothing=smoothing)
