"""A golden of variants.json with its config, and comparisons with it."""

import jax
import numpy as np
import pytest

from dgnet_jax.interop import torch_names
from dgnet_jax.interop.release.names import network_entries
from dgnet_jax.models.build import make_networks
from tests.parity import goldens

RTOL = 1e-8
# Relative to the norm of the largest gradient; errors of smaller gradients are relative to this. A bias in front of a
# normalisation has a zero gradient, of which rounding leaves 1e-13 (release fact 37).
NEGLIGIBLE = 1e-5


class Variant:
  """A golden with its config and our networks."""

  def __init__(self, folder, name, ledger):
    self.folder, self.name, self._ledger = folder, name, ledger
    self.golden = goldens.load_json(folder, 'variants')[name]
    self.recipe = goldens.load_recipe(folder)
    self.meta = goldens.variant_meta(folder, self.golden)
    if 'image_shape' in self.golden:
      self.meta['height'], self.meta['width'] = self.golden['image_shape'][2:]
    self.config = goldens.config_of(self.meta)
    self.num_identities = self.golden['ID_class']
    self.networks = make_networks(self.config, self.num_identities)

  def variables(self, network):
    seed = self.meta['master_seed']
    return goldens.variables_of(self.folder, network, self.config, seed, self.num_identities)

  def image(self, offset, shape=None):
    shape = shape or (self.meta['batch'], 3, self.meta['height'], self.meta['width'])
    return goldens.images(self.recipe, shape, self.meta['master_seed'] + offset)

  def check(self, key, actual, expected):
    """Compares a number, or an array with its fingerprint under the name `key`."""
    if np.ndim(expected):
      self.check_fingerprint(key, actual, expected)
    else:
      self.check_error(abs(float(actual) - expected) / abs(expected), key)

  def check_fingerprint(self, key, actual, expected, least_norm=1e-300):
    error = np.max(np.abs(np.subtract(self.recipe.fingerprint(key, actual), expected)))
    self.check_error(error / max(expected[0], least_norm), key)

  def check_gradients(self, network, tree, expected):
    """Compares gradients with fingerprints by name; returns all gradients by the release's names."""
    entries = [e for e in network_entries(network, self.config) if e.path[0] == 'params']
    ours = torch_names.to_torch({'params': jax.device_get(tree)}, entries)
    largest = max(norm for norm, _ in expected.values())
    for name, pair in expected.items():
      self.check_fingerprint(name, ours[name], pair, NEGLIGIBLE * largest)
    return ours

  def check_error(self, error, key):
    self._ledger.check(f'variants: {self.name}', error, RTOL, key)


def each(kind, names):
  """Parametrises the fixture `variant` with the goldens '<kind>/<name>'."""
  return pytest.mark.parametrize('variant', [f'{kind}/{name}' for name in names], indirect=True, ids=names)
