import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest
import scipy.ndimage

from dgnet_jax.models.warping import (
  block_means,
  cell_centres,
  repeated,
  sample,
  space_to_depth,
  stretched,
)


def random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_sampling_is_bilinear_with_nearest_pixels_outside():
  image = random(2, 7, 5, 3)
  place = np.random.default_rng(1).uniform(-3, 9, (2, 4, 6, 2)).astype(np.float32)
  expected = np.empty((2, 4, 6, 3), np.float32)
  for i in range(2):
    for c in range(3):
      coordinates = [place[i, ..., 0].ravel(), place[i, ..., 1].ravel()]
      values = scipy.ndimage.map_coordinates(np.asarray(image[i, ..., c]), coordinates, order=1, mode='nearest')
      expected[i, ..., c] = values.reshape(4, 6)
  np.testing.assert_allclose(sample(image, place), expected, atol=1e-5)


def test_sampling_at_all_pixels_is_the_identity():
  image = random(2, 6, 4, 3)
  place = jnp.broadcast_to(cell_centres(6, 4, 1), (2, 6, 4, 2))
  np.testing.assert_array_equal(sample(image, place), image)


def test_sampling_has_the_gradients_of_its_formula():
  image, place = random(1, 5, 4, 2), jnp.array([[[[1.3, 2.6], [3.9, 0.2]]]])
  check_grads(sample, (image, place), order=1, modes=['rev'], atol=1e-2, rtol=1e-2)


def test_a_map_of_one_pixel_can_be_sampled():
  assert sample(jnp.full((1, 1, 1, 2), 3.0), jnp.array([[[[0.4, -2.0]]]])).tolist() == [[[[3.0, 3.0]]]]


@pytest.mark.parametrize('stride', [2, 4])
def test_blocks_of_pixels(stride):
  x = random(2, 8, 4, 3)
  deep = space_to_depth(x, stride)
  assert deep.shape == (2, 8 // stride, 4 // stride, 3 * stride**2)
  np.testing.assert_array_equal(deep[0, 1, 0].reshape(stride, stride, 3), x[0, stride : 2 * stride, :stride])
  means = np.asarray(deep).reshape(*deep.shape[:3], stride**2, 3).mean(3)
  np.testing.assert_allclose(block_means(x, stride), means, atol=1e-6)
  np.testing.assert_allclose(block_means(repeated(means, stride), stride), means, atol=1e-6)


@pytest.mark.parametrize(('stride', 'finer'), [(8, 8), (8, 4), (8, 1), (2, 1)])
def test_stretching_keeps_linear_maps_of_places(stride, finer):
  """Scaling, shear and shift of an image are linear in the place, also beyond the outermost centres."""

  def linear(place):
    return place @ jnp.array([[0.5, 0.1], [-0.3, 2.0]]) + jnp.array([3.0, -7.0])

  coarse = linear(cell_centres(32 // stride, 16 // stride, stride))[None]
  fine = linear(cell_centres(32 // finer, 16 // finer, finer))[None]
  np.testing.assert_allclose(stretched(coarse, stride // finer), fine, atol=1e-4)
