"""Metric losses: values by hand, an independent loop over all pairs, and gradients where distances are 0."""

import functools

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dgnet_jax.losses.metric import batch_hard_triplet_loss, circle_loss

# Three of identity 0 and two of identity 1, on a line, and one of identity 2 that has no positive.
LINE = jnp.array([[0.0, 0.0], [3.0, 0.0], [4.0, 0.0], [6.0, 0.0], [9.0, 0.0], [11.0, 0.0]])
WHO = jnp.array([0, 0, 0, 1, 1, 2])
SOFT = functools.partial(batch_hard_triplet_loss, margin=0.0)
LOSSES = {
  'hard': functools.partial(batch_hard_triplet_loss, margin=0.5),
  'soft': SOFT,
  'circle': functools.partial(circle_loss, margin=0.3, scale=7.0),
}


def slow_triplet(feature, identity, margin):
  losses = []
  for i, anchor in enumerate(feature):
    distances = [float(np.sqrt(np.sum((anchor - other) ** 2))) for other in feature]
    positives = [d for j, d in enumerate(distances) if j != i and identity[j] == identity[i]]
    negatives = [d for j, d in enumerate(distances) if identity[j] != identity[i]]
    gap = max(positives) - min(negatives) if positives and negatives else -np.inf
    losses.append(max(0.0, gap + margin) if margin else np.log1p(np.exp(gap)))
  return np.array(losses)


def slow_circle(feature, identity, margin, scale):
  """The sum over all pairs of a positive and a negative: eq. 5 of the paper."""
  losses = []
  for i, anchor in enumerate(feature):
    total = 1.0
    for j, positive in enumerate(feature):
      for k, negative in enumerate(feature):
        if j == i or identity[j] != identity[i] or identity[k] == identity[i]:
          continue
        near, far = (
          float(anchor @ x / np.sqrt((anchor @ anchor) * (x @ x))) if np.any(x) and np.any(anchor) else 0.0
          for x in (positive, negative)
        )
        weight_near, weight_far = max(0, 1 + margin - near), max(0, far + margin)
        total += np.exp(scale * (weight_far * (far - margin) - weight_near * (near - (1 - margin))))
    losses.append(np.log(total))
  return np.array(losses)


def random_batch(seed, count=12):
  generator = np.random.default_rng(seed)
  return generator.normal(size=(count, 3)), generator.integers(0, 4, count).astype(np.int32)


class TestBatchHardTriplet:
  def test_value_by_hand(self):
    # Farthest positives 4, 3, 4, 3, 3; nearest negatives 6, 3, 2, 2, 2; the last example has no positive.
    loss = batch_hard_triplet_loss(LINE, WHO, margin=0.5)
    np.testing.assert_allclose(loss, [0, 0.5, 2.5, 1.5, 1.5, 0], rtol=1e-6)

  def test_soft_margin_by_hand(self):
    expected = np.log1p(np.exp([-2.0, 0.0, 2.0, 1.0, 1.0]))
    np.testing.assert_allclose(SOFT(LINE, WHO), [*expected, 0], rtol=1e-6)

  @pytest.mark.usefixtures('x64')
  @pytest.mark.parametrize('margin', [0.0, 0.3, 5.0])
  def test_equals_a_loop_over_all_pairs(self, margin):
    for seed in range(5):
      feature, identity = random_batch(seed)
      loss = batch_hard_triplet_loss(jnp.asarray(feature), jnp.asarray(identity), margin=margin)
      np.testing.assert_allclose(loss, slow_triplet(feature, identity, margin), rtol=1e-12)

  def test_small_distances_far_from_the_origin_are_exact(self):
    """Products of such embeddings are rounded by more than their distances."""
    feature = jnp.array([[1000.0], [1000.25], [1001.0]])
    loss = batch_hard_triplet_loss(feature, jnp.array([0, 0, 1]), margin=1.0)
    np.testing.assert_array_equal(loss, [0.25, 0.5, 0])

  def test_negative_margin_is_refused(self):
    with pytest.raises(ValueError, match='margin=-1'):
      batch_hard_triplet_loss(LINE, WHO, margin=-1)


class TestCircle:
  def test_value_by_hand(self):
    # At right angles to the negative and parallel to the positive: weights 0.25 and 0.25, both pairs are 0.25 from
    # their margins, on the right side.
    feature, identity = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 5.0]]), jnp.array([0, 0, 1])
    right = np.log1p(np.exp(-2 * 16 * 0.25 * 0.25))
    np.testing.assert_allclose(circle_loss(feature, identity, margin=0.25, scale=16.0), [right, right, 0], rtol=1e-6)
    # Opposite to the positive, cosine -1, and as far from the negative.
    feature = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 5.0]])
    wrong = np.log1p(np.exp(16 * (2.25 * 1.75 - 0.25 * 0.25)))
    np.testing.assert_allclose(circle_loss(feature, identity, margin=0.25, scale=16.0), [wrong, wrong, 0], rtol=1e-6)

  @pytest.mark.usefixtures('x64')
  @pytest.mark.parametrize(('margin', 'scale'), [(0.25, 128.0), (0.0, 1.0), (0.4, 10.0)])
  def test_equals_a_loop_over_all_pairs_of_pairs(self, margin, scale):
    for seed in range(4):
      feature, identity = random_batch(seed)
      feature[0] = 0
      loss = circle_loss(jnp.asarray(feature), jnp.asarray(identity), margin=margin, scale=scale)
      np.testing.assert_allclose(loss, slow_circle(feature, identity, margin, scale), rtol=1e-10, atol=1e-12)

  @pytest.mark.usefixtures('x64')
  def test_weights_of_pairs_are_constants(self):
    """One positive at cosine 0.6, one negative at 0.8: the gradient is a_p and a_n times a sigmoid."""
    angles = jnp.arccos(jnp.array([0.6, 0.8]))

    def loss(angles):
      feature = jnp.stack([jnp.array([1.0, 0.0]), *(jnp.stack([jnp.cos(a), jnp.sin(a)]) for a in angles)])
      return circle_loss(feature, jnp.array([0, 0, 1]), margin=0.25, scale=4.0)[0]

    slope = 1 / (1 + np.exp(-4 * (1.05 * (0.8 - 0.25) - 0.65 * (0.6 - 0.75))))
    sines = np.sin(np.asarray(angles))
    np.testing.assert_allclose(jax.grad(loss)(angles), 4 * slope * np.array([0.65, -1.05]) * sines, rtol=1e-10)


@pytest.mark.parametrize('name', LOSSES)
class TestBoth:
  def test_jit_and_vmap(self, name):
    feature = jax.random.normal(jax.random.key(0), (6, 2, 3))
    identity = jnp.array([[0, 1], [0, 0], [1, 1], [1, 0], [2, 2], [2, 2]])
    streams = jax.jit(jax.vmap(LOSSES[name], in_axes=1, out_axes=1))(feature, identity)
    for i in range(2):
      np.testing.assert_allclose(streams[:, i], LOSSES[name](feature[:, i], identity[:, i]), rtol=1e-5, atol=1e-6)

  @pytest.mark.usefixtures('x64')
  def test_gradient_and_precision(self, name):
    feature, identity = random_batch(3)
    if name != 'circle':  # whose weights are constants for the gradient
      check_grads(lambda x: LOSSES[name](x, jnp.asarray(identity)).sum(), (feature,), order=1, modes=['rev'])
    for dtype, expected in (('float64', 'float64'), ('float32', 'float32'), ('bfloat16', 'float32')):
      assert LOSSES[name](jnp.asarray(feature, dtype), jnp.asarray(identity)).dtype == expected

  @pytest.mark.parametrize('value', [0.0, 1.5])
  def test_gradient_is_finite_for_identical_images(self, name, value):
    """Of one identity and of several; also if the embedding is 0."""
    feature = jnp.full((6, 3), value).at[4:].add(1.0)
    loss, gradient = jax.value_and_grad(lambda x: LOSSES[name](x, WHO).sum())(feature)
    assert np.isfinite(loss) and loss > 0 and np.all(np.isfinite(gradient))

  @pytest.mark.parametrize('identity', [[0, 1, 2, 3], [5, 5, 5, 5]], ids=['no positives', 'no negatives'])
  def test_examples_without_a_pair_have_no_loss_and_no_gradient(self, name, identity):
    feature = jax.random.normal(jax.random.key(1), (4, 3))
    loss, gradient = jax.value_and_grad(lambda x: LOSSES[name](x, jnp.array(identity)).sum())(feature)
    assert loss == 0 and not np.any(gradient)

  def test_order_of_examples_does_not_matter(self, name):
    feature, identity = (jnp.asarray(x) for x in random_batch(4))
    order = np.random.default_rng(0).permutation(len(identity))
    one, other = LOSSES[name](feature, identity)[order], LOSSES[name](feature[order], identity[order])
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

  @pytest.mark.parametrize(('feature', 'identity'), [((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 2, 3), (2,))])
  def test_wrong_shapes_are_reported(self, name, feature, identity):
    with pytest.raises(ValueError, match='feature.shape=.* identity.shape='):
      LOSSES[name](jnp.zeros(feature), jnp.zeros(identity, int))

  def test_identities_must_be_integers(self, name):
    with pytest.raises(ValueError, match='float32'):
      LOSSES[name](jnp.zeros((2, 3)), jnp.zeros(2))
