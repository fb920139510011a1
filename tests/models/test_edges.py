"""Canny's edges against those of the release, which are OpenCV's, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.edges import canny, to_edges
from tests.parity import goldens


@pytest.fixture(autouse=True)
def _float64(x64):
  """Every test runs in float64."""


def test_edges_equal_the_release(parity_dir, ledger):
  arrays = goldens.load_npz(parity_dir, 'preprocess')
  names = sorted(name for name in arrays if name.startswith('edge'))
  images = np.stack([goldens.nhwc(arrays[name.replace('edge', 'out')]) for name in names])
  expected = np.stack([arrays[name] for name in names]) - 0.5
  assert 0 < (expected > 0).mean() < 0.5
  error = goldens.relative_error(jax.jit(to_edges)(jnp.asarray(images))[..., 0], expected)
  ledger.check('preprocess: edge input', error, 0)


def test_a_step_has_one_edge_and_a_constant_image_has_none():
  gray = np.zeros((2, 8, 9), np.uint8)
  gray[1, :, 5:] = 100
  edges = np.asarray(canny(jnp.asarray(gray)))
  assert not edges[0].any()
  np.testing.assert_array_equal(edges[1], np.arange(9)[None] == np.full((8, 1), 4))


def test_weak_edges_count_only_if_connected_to_strong_ones():
  """One step fades from strong to weak; another, far from it, is weak throughout."""
  gray = np.full((1, 12, 24), 100, np.uint8)
  gray[0, :, 6:12] = np.linspace(180, 120, 12)[:, None].astype(np.uint8)
  gray[0, :, 18:] = 120
  edges = np.asarray(canny(jnp.asarray(gray)))[0]
  assert edges[:, 5:7].any(axis=1).all()
  assert not edges[:, 14:].any()


def test_no_gradient_reaches_the_image():
  image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)))
  assert not jax.grad(lambda x: to_edges(x).sum())(image).any()
