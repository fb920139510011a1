"""Adversarial losses and the gradient penalty: values by hand, gradients, shapes."""

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dgnet_jax.losses import adversarial
from dgnet_jax.losses.adversarial import adversarial_losses, feature_matching_loss, r1_penalty, scores_and_penalty

LOGIT_OF = {value: np.log(value / (1 - value)) for value in (0.25, 0.5, 0.8)}
FAMILIES = ('lsgan', 'nonsaturating', 'wasserstein')
# Two examples; at the first scale a map of two pixels, at the second a single score.
REAL = [np.array([[[1.0, 0.0]], [[2.0, 1.0]]]), np.array([0.5, 1.0])]
FAKE = [np.array([[[0.0, 2.0]], [[1.0, 1.0]]]), np.array([-1.0, 0.0])]


def losses_of(family):
  return (getattr(adversarial, f'{family}_{player}_loss') for player in ('discriminator', 'generator'))


def as_arrays(scores):
  return [jnp.asarray(score) for score in scores]


class TestValuesByHand:
  def test_lsgan(self):
    discriminator, generator = losses_of('lsgan')
    real, fake = as_arrays(REAL), as_arrays(FAKE)
    np.testing.assert_allclose(discriminator(real, fake), [(2.0 + 0.5) + (1.0 + 0.25), (1.0 + 0.5) + 0.0], rtol=1e-6)
    np.testing.assert_allclose(generator(fake), [2 * (1.0 + 4.0), 2 * (0.0 + 1.0)], rtol=1e-6)

  def test_nonsaturating(self):
    discriminator, generator = losses_of('nonsaturating')
    real = [jnp.array([[LOGIT_OF[0.8]], [LOGIT_OF[0.5]]])]
    fake = [jnp.array([[LOGIT_OF[0.25]], [LOGIT_OF[0.5]]])]
    np.testing.assert_allclose(discriminator(real, fake), [-np.log(0.8) - np.log(0.75), -2 * np.log(0.5)], rtol=1e-6)
    np.testing.assert_allclose(generator(fake), [-np.log(0.25), -np.log(0.5)], rtol=1e-6)

  def test_nonsaturating_is_finite_for_large_scores(self):
    discriminator, generator = losses_of('nonsaturating')
    scores = [jnp.array([[1e4], [-1e4]])]
    np.testing.assert_allclose(discriminator(scores, scores), [1e4, 1e4])
    np.testing.assert_allclose(generator(scores), [0.0, 1e4])

  def test_wasserstein(self):
    discriminator, generator = losses_of('wasserstein')
    real, fake = as_arrays(REAL), as_arrays(FAKE)
    drift = 0.001 * np.array([4.0 + 1.0 + 1.0 + 0.25, 2.0 + 5.0 + 0.0 + 1.0])
    np.testing.assert_allclose(discriminator(real, fake), [1 - 0.5 - 1 - 0.5, 1 - 1.5 + 0 - 1] + drift, atol=1e-6)
    squares = np.array([4.0 + 1.0, 2.0 + 0.0])
    np.testing.assert_allclose(generator(fake), [-1 + 1, -1] + 0.001 * squares, atol=1e-6)
    np.testing.assert_allclose(generator(fake, drift_weight=1.0), [0, -1] + squares, atol=1e-6)


@pytest.mark.parametrize('family', FAMILIES)
class TestEveryFamily:
  @pytest.mark.usefixtures('x64')
  def test_gradients_jit_vmap_and_precision(self, family):
    discriminator, generator = losses_of(family)
    real, fake = [np.random.default_rng(seed).normal(size=(3, 2, 4, 2)) for seed in (0, 1)]
    check_grads(lambda r, f: discriminator([r], [f]), (real, fake), order=1)
    check_grads(lambda f: generator([f]), (fake,), order=1)
    over_streams = jax.jit(jax.vmap(discriminator, in_axes=1, out_axes=1))([real], [fake])
    assert over_streams.shape == (3, 2) and over_streams.dtype == 'float64'
    one_stream = discriminator([jnp.asarray(real[:, 1])], [jnp.asarray(fake[:, 1])])
    np.testing.assert_allclose(over_streams[:, 1], one_stream, rtol=1e-12)
    assert generator([jnp.asarray(fake, 'bfloat16')]).dtype == 'float32'

  def test_a_trailing_channel_axis_makes_no_difference(self, family):
    discriminator, _ = losses_of(family)
    real, fake = jnp.ones((2, 3, 4)), jnp.full((2, 3, 4), 0.25)
    np.testing.assert_allclose(discriminator([real], [fake]), discriminator([real[..., None]], [fake[..., None]]))

  def test_wrong_shapes_are_reported(self, family):
    discriminator, generator = losses_of(family)
    ones = jnp.ones((2, 3))
    with pytest.raises(ValueError, match='real_shapes=.* fake_shapes='):
      discriminator([ones], [ones, ones])
    with pytest.raises(ValueError, match='real_shapes=.* fake_shapes='):
      discriminator([ones], [jnp.ones((2, 4))])
    with pytest.raises(ValueError, match='shapes='):
      generator([ones, jnp.ones((3, 3))])
    with pytest.raises(ValueError, match='shapes='):
      generator([])
    with pytest.raises(ValueError, match='scores.shape=.*must be a sequence'):
      generator(ones)


def quadratic(weights, image):
  """Scores f[B, 2] with known gradients: w_0 * sum(x^2) / 2 and w_1 * sum(x)."""
  flat = image.reshape(len(image), -1)
  return jnp.stack([weights[0] * (flat**2).sum(1) / 2, weights[1] * flat.sum(1)], axis=1)


@pytest.mark.usefixtures('x64')
class TestPenalty:
  image = np.random.default_rng(3).normal(size=(3, 4, 2, 3))

  def test_value_by_hand(self):
    weights = jnp.array([2.0, 0.5])
    scores, penalty = scores_and_penalty(lambda x: quadratic(weights, x), jnp.asarray(self.image))
    np.testing.assert_allclose(scores, quadratic(weights, self.image))
    np.testing.assert_allclose(penalty, ((2.0 * self.image + 0.5) ** 2).sum((1, 2, 3)))

  def test_gradients_equal_those_of_double_backward(self):
    """With respect to parameters and image, with different weights per example, through a nonlinear function."""
    matrix = np.random.default_rng(4).normal(size=(24, 5))

    def score(weights, image):
      return jnp.tanh(jnp.tanh(image.reshape(3, -1) @ weights['first']) @ weights['second'])

    def by_double_backward(weights, image):
      gradient = jax.grad(lambda x: score(weights, x).sum())(image)
      return score(weights, image), (gradient**2).sum((1, 2, 3))

    def by_forward_mode(weights, image):
      return scores_and_penalty(lambda x: score(weights, x), image)

    def objective(function, weights, image):
      scores, penalty = function(weights, image)
      return (penalty * jnp.array([1.0, -2.0, 0.3])).sum() + (scores**2).sum()

    weights = {'first': jnp.asarray(matrix), 'second': jnp.asarray(matrix[:5, :2])}
    expected = jax.value_and_grad(lambda w, x: objective(by_double_backward, w, x), argnums=(0, 1))(weights, self.image)
    actual = jax.jit(jax.value_and_grad(lambda w, x: objective(by_forward_mode, w, x), argnums=(0, 1)))(
      weights, self.image
    )
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-14), actual, expected)

  def test_penalty_is_summed_over_scales(self):
    first, second = (lambda x: quadratic(jnp.array([1.0, 0.0]), x)), (lambda x: quadratic(jnp.array([0.0, 2.0]), x))
    image = jnp.asarray(self.image)
    np.testing.assert_allclose(r1_penalty((first, second), image), r1_penalty(first, image) + r1_penalty(second, image))
    np.testing.assert_allclose(r1_penalty(second, image), [4.0 * 24] * 3)

  def test_score_transform_is_differentiated(self):
    """With a score x_0 and the transform tanh, the gradient is (1 - tanh(x_0)^2, 0, ...)."""
    image = jnp.asarray(self.image)
    scores, penalty = scores_and_penalty(lambda x: x[:, 0, 0, :1], image, jnp.tanh)
    np.testing.assert_array_equal(scores, image[:, 0, 0, :1])
    np.testing.assert_allclose(penalty, (1 - np.tanh(self.image[:, 0, 0, 0]) ** 2) ** 2)

  def test_wrong_scores_are_reported(self):
    with pytest.raises(ValueError, match='scores.shape='):
      scores_and_penalty(lambda x: x.sum(0), jnp.asarray(self.image))
    with pytest.raises(ValueError, match='no score function'):
      r1_penalty([], jnp.asarray(self.image))


@pytest.mark.parametrize('gan_type', ['lsgan', 'nsgan', 'wgan'])
def test_adversarial_losses_are_those_of_the_family(gan_type):
  losses = adversarial_losses(gan_type, batch_size=4)
  family = {'lsgan': 'lsgan', 'nsgan': 'nonsaturating', 'wgan': 'wasserstein'}[gan_type]
  discriminator, generator = losses_of(family)
  options = {'drift_weight': 0.004} if gan_type == 'wgan' else {}
  real, fake = as_arrays(REAL), as_arrays(FAKE)
  np.testing.assert_array_equal(losses.discriminator(real, fake), discriminator(real, fake, **options))
  np.testing.assert_array_equal(losses.generator(fake), generator(fake, **options))


def test_unknown_gan_type_is_an_error():
  with pytest.raises(ValueError, match="gan_type='began': must be lsgan, nsgan or wgan"):
    adversarial_losses('began', batch_size=4)


class TestFeatureMatching:
  def test_value_by_hand(self):
    real, fake = as_arrays(REAL), as_arrays(FAKE)
    # Example 0: errors 1.5 over a mean of 0.5, and 1.5 over 0.5. Example 1: 0.5 over 1.5, and 1 over 1.
    np.testing.assert_allclose(feature_matching_loss(fake, real), [3.0, (1 / 3 + 1) / 2], rtol=1e-5)

  def test_size_of_features_does_not_matter(self):
    real, fake = as_arrays(REAL), as_arrays(FAKE)
    scaled = feature_matching_loss([100 * fake[0], fake[1]], [100 * real[0], real[1]])
    np.testing.assert_allclose(scaled, feature_matching_loss(fake, real), rtol=1e-4)

  def test_features_of_nothing_and_equal_features(self):
    zeros = [jnp.zeros((2, 3, 3, 4))]
    np.testing.assert_array_equal(feature_matching_loss(zeros, zeros), 0)
    np.testing.assert_allclose(feature_matching_loss(zeros, [jnp.ones((2, 3, 3, 4))]), 1, rtol=1e-5)

  @pytest.mark.usefixtures('x64')
  def test_gradient_reaches_only_the_rebuilt_image(self):
    real, fake = as_arrays(REAL), [x + 0.3 for x in as_arrays(FAKE)]
    check_grads(lambda x: feature_matching_loss(x, real), (fake,), order=1, modes=['rev'])
    to_real = jax.grad(lambda x: feature_matching_loss(fake, x).sum())(real)
    assert not any(x.any() for x in to_real)

  def test_wrong_numbers_of_layers_and_shapes_raise(self):
    for fake, real in (([], []), ([jnp.ones(2)], [jnp.ones(2)] * 2), ([jnp.ones((2, 3))], [jnp.ones((2, 4))])):
      with pytest.raises(ValueError, match='scores|shapes'):
        feature_matching_loss(fake, real)
