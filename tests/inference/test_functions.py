"""Embeddings, swaps and activations of normalised images: against the release, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.schema import Config
from dgnet_jax.inference import functions
from dgnet_jax.models.build import make_networks
from dgnet_jax.pixels import normalize
from tests.inference.linear_networks import HEIGHT, WIDTH, LinearNetworks, linear_parameters, random_images, unit
from tests.parity import goldens


@pytest.fixture(scope='module')
def linear():
  """Networks, generator parameters, re-id parameters, re-id statistics."""
  return LinearNetworks(), *linear_parameters()


def test_embedding_equals_the_release(parity_dir, x64, ledger):
  """The release's own feature extraction: ResNet-50 at 256x128, float64."""
  arrays = goldens.load_npz(parity_dir, 'eval_reid')
  config, num_identities = Config(), goldens.release_identities(parity_dir)
  master_seed = int(arrays['feature/master_seed'])
  variables = goldens.variables_of(parity_dir, 'id', config, master_seed, num_identities)
  image = goldens.images(
    goldens.load_recipe(parity_dir),
    (len(arrays['feature/out']), 3, *config.data.image_size_hw),
    int(arrays['feature/image_seed']),
  )
  networks = make_networks(config, num_identities)
  actual = jax.jit(functions.embedding, static_argnums=0)(
    networks, variables['params'], variables['batch_stats'], image
  )
  assert actual.dtype == np.float64
  ledger.check('eval_reid: feature', goldens.relative_error(actual, arrays['feature/out']), 1e-10)


def test_embedding_equals_the_formula(linear):
  networks, _, reid, stats = linear
  image = np.asarray(normalize(random_images(3)))
  halves = []
  for name in ('primary', 'fine'):
    views = [unit(view.reshape(3, -1) @ reid[name]) for view in (image, image[:, :, ::-1])]
    halves.append(unit(views[0] + views[1]))
  actual = functions.embedding(networks, reid, stats, image)
  np.testing.assert_allclose(actual, np.concatenate(halves, axis=-1), rtol=1e-4, atol=1e-5)


def test_embedding_of_the_mirror_image_is_equal(linear):
  networks, _, reid, stats = linear
  image = np.asarray(normalize(random_images(3)))
  mirrored = functions.embedding(networks, reid, stats, image[:, :, ::-1])
  np.testing.assert_allclose(mirrored, functions.embedding(networks, reid, stats, image), rtol=1e-4, atol=1e-5)


def test_embedding_of_zero_features_is_zero(linear):
  networks, _, reid, stats = linear
  zero = jax.tree.map(np.zeros_like, reid)
  assert not np.asarray(functions.embedding(networks, zero, stats, jnp.ones((1, HEIGHT, WIDTH, 3)))).any()


def test_swap_equals_the_formula(linear):
  networks, generator, reid, stats = linear
  structure, appearance = normalize(random_images(2)), normalize(random_images(2, seed=1))
  swapped = functions.swap(networks, generator, reid, stats, structure_from=structure, appearance_from=appearance)
  code = appearance.mean((1, 2)) + stats['mean']
  expected = 2 * structure.mean(-1, keepdims=True) + 3 * code[:, None, None]
  np.testing.assert_allclose(swapped, expected, rtol=1e-4, atol=1e-5)


def test_activation_is_the_norm_over_channels(linear):
  networks, _, reid, stats = linear
  image = normalize(random_images(2))
  activation = functions.activation(networks, reid, stats, image)
  np.testing.assert_allclose(activation, np.sqrt(((image + stats['mean']) ** 2).sum(-1)), rtol=1e-5)


class Strided(LinearNetworks):
  """Every cell is the sum of a 3x3 window with stride 2 and a margin of zeros, as in the backbone."""

  reid_cells = 2, 0

  def feature_map(self, params, batch_stats, image):
    flat = image.reshape(-1, *image.shape[-3:])
    sums = jax.lax.reduce_window(flat, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sums.reshape(*image.shape[:-3], *sums.shape[1:])


class TestActivationOfAStridedNetwork:
  def activation(self, image):
    return np.asarray(functions.activation(Strided(), {}, {}, np.float32(image)))

  def test_no_side_is_preferred(self):
    one_view = Strided().feature_map({}, {}, np.ones((8, 8, 3), np.float32))[..., 0]
    assert one_view[3, 0] < one_view[3, -1]  # the first cell sees a margin, the last does not
    activation = self.activation(np.ones((8, 8, 3)))
    np.testing.assert_allclose(activation, activation[:, ::-1], rtol=1e-6)

  def test_the_mirror_image_has_the_mirrored_map(self):
    image = np.random.default_rng(0).normal(size=(2, 8, 6, 3))
    np.testing.assert_allclose(self.activation(image[:, :, ::-1]), self.activation(image)[..., ::-1], rtol=1e-5)

  @pytest.mark.parametrize('place', [(2, 4), (4, 3), (6, 8)])
  def test_the_highest_value_is_where_the_image_has_it(self, place):
    image = np.zeros((10, 12, 3))
    image[place] = 1
    activation = self.activation(image)
    assert abs(np.argmax(activation.max(axis=0)) - place[1]) <= 1
    assert activation[place] > activation.max() / 2
