"""Embeddings and swaps: against the release, and over batches that do not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.inference import functions
from dgnet_jax.models.build import make_networks
from dgnet_jax.pixels import normalize
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.types import AppearanceOutput
from tests.parity import goldens

HEIGHT, WIDTH = 8, 4


@dataclasses.dataclass(frozen=True, eq=False)
class LinearNetworks:
  """Stands in for `Networks`: every code is a linear map of the image, so results can be computed by hand."""

  traces: list = dataclasses.field(default_factory=list)

  def encode_structure(self, params, image):
    return image.mean(-1, keepdims=True) * params['structure']

  def encode_appearance(self, params, batch_stats, image):
    self.traces.append(image.shape)
    flat = image.reshape(*image.shape[:-3], -1)
    code = image.mean((-3, -2)) + batch_stats['mean']
    return AppearanceOutput(code, code, code, flat @ params['primary'], flat @ params['fine'])

  def decode(self, params, structure_code, appearance_code):
    return structure_code + params['appearance'] * appearance_code[..., None, None, :]


@pytest.fixture(scope='module')
def linear():
  """Networks, generator parameters, re-id parameters, statistics."""
  rng = np.random.default_rng(0)
  size = HEIGHT * WIDTH * 3
  reid = {name: np.float32(rng.normal(size=(size, 5))) for name in ('primary', 'fine')}
  generator = {'structure': np.float32(2), 'appearance': np.float32(3)}
  return LinearNetworks(), generator, reid, {'mean': np.float32([0.1, 0.2, 0.3])}


def random_images(count, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_release_embedding(parity_dir, x64, ledger):
  """The release's own feature extraction: ResNet-50 at 256x128, float64."""
  arrays = goldens.load_npz(parity_dir, 'eval_reid')
  config, num_identities = default_config(), goldens.release_identities(parity_dir)
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


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_embedding_by_hand(linear):
  networks, _, reid, stats = linear
  image = np.asarray(normalize(random_images(3)))
  halves = []
  for name in ('primary', 'fine'):
    views = [unit(view.reshape(3, -1) @ reid[name]) for view in (image, image[:, :, ::-1])]
    halves.append(unit(views[0] + views[1]))
  actual = functions.embedding(networks, reid, stats, image)
  np.testing.assert_allclose(actual, np.concatenate(halves, axis=-1), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    functions.embedding(networks, reid, stats, image[:, :, ::-1]), actual, rtol=1e-4, atol=1e-5
  )


def test_zero_features_stay_finite(linear):
  networks, _, reid, stats = linear
  zero = jax.tree.map(np.zeros_like, reid)
  assert not np.asarray(functions.embedding(networks, zero, stats, jnp.ones((1, HEIGHT, WIDTH, 3)))).any()


@pytest.mark.parametrize('batch_size', [1, 3, 7, 64])
def test_every_image_counts_once(linear, batch_size):
  networks, _, reid, stats = linear
  images = random_images(7)
  whole = functions.embedding(networks, reid, stats, normalize(images))
  actual = functions.embed(networks, reid, stats, images, batch_size)
  np.testing.assert_allclose(actual, whole, rtol=1e-4, atol=1e-5)


def test_one_compilation_for_all_sets():
  networks = LinearNetworks()
  size = HEIGHT * WIDTH * 3
  reid = {name: np.ones((size, 2), np.float32) for name in ('primary', 'fine')}
  for count in (9, 4, 6):
    functions.embed(networks, reid, {'mean': np.float32(0)}, random_images(count), 4)
  assert networks.traces == [(4, 2, HEIGHT, WIDTH, 3)]


def test_batches_spread_over_devices(linear):
  networks, generator, reid, stats = linear
  mesh = make_mesh()
  images = random_images(11)
  expected = functions.embed(networks, reid, stats, images, 4)
  placed = jax.device_put((generator, reid, stats), replicated(mesh))
  actual = functions.embed(networks, placed[1], placed[2], images, 4, mesh=mesh)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
  made = functions.swap_images(networks, *placed, structures=images, appearances=images[::-1], batch_size=3, mesh=mesh)
  assert sum(len(batch) for batch in made) == 11


def test_swap_by_hand(linear):
  networks, generator, reid, stats = linear
  structure, appearance = normalize(random_images(2)), normalize(random_images(2, 1))
  made = functions.swap(networks, generator, reid, stats, structure_from=structure, appearance_from=appearance)
  code = appearance.mean((1, 2)) + stats['mean']
  expected = 2 * structure.mean(-1, keepdims=True) + 3 * code[:, None, None]
  np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_swap_images_keeps_the_order(linear):
  networks, _, reid, stats = linear
  generator = {'structure': np.float32(1), 'appearance': np.float32(0)}  # the grey structure image, in pixels
  grey = np.broadcast_to(random_images(10)[..., :1], (10, HEIGHT, WIDTH, 3)).copy()
  made = functions.swap_images(networks, generator, reid, stats, structures=grey, appearances=grey, batch_size=4)
  shown = np.concatenate(list(made))
  assert shown.dtype == np.uint8
  order = np.argsort(grey.mean((1, 2, 3)))
  np.testing.assert_array_equal(np.argsort(shown.astype(float).mean((1, 2, 3))), order)


def test_sources_of_different_length_are_named(linear):
  networks, generator, reid, stats = linear
  arguments = {'structures': random_images(3), 'appearances': random_images(2), 'batch_size': 2}
  with pytest.raises(ValueError, match=r'different length, \[3, 2\]'):
    list(functions.swap_images(networks, generator, reid, stats, **arguments))


def test_reconstruct_takes_codes_from_the_right_people(linear):
  networks, generator, reid, stats = linear
  image, positive = (np.asarray(normalize(random_images(6, seed))).reshape(3, 2, HEIGHT, WIDTH, 3) for seed in (0, 1))
  made = functions.reconstruct(networks, generator, reid, stats, image=image, positive=positive)

  def one(structure_from, appearance_from):
    return functions.swap(
      networks, generator, reid, stats, structure_from=structure_from, appearance_from=appearance_from
    )

  cross = np.stack([one(image[:, 0], image[:, 1]), one(image[:, 1], image[:, 0])], axis=1)
  cycle = np.stack([one(cross[:, 0], cross[:, 1]), one(cross[:, 1], cross[:, 0])], axis=1)
  expected = {
    'self_reconstruction': one(image, image),
    'positive_reconstruction': one(image, positive),
    'cross': cross,
    'cycle_reconstruction': cycle,
  }
  assert list(made) == list(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(made[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_progress_lines(linear, monkeypatch, lines):
  networks, _, reid, stats = linear
  monkeypatch.setattr(functions, 'PROGRESS_SECONDS', -1.0)
  lines.clear()
  functions.embed(networks, reid, stats, random_images(9), 4, what='embedding the gallery')
  assert len(lines) == 3 and lines[-1].startswith('embedding the gallery: 8/9') and 'left' in lines[-1]
