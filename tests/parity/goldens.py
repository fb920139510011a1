"""Reads the goldens: numbers that the release computed in float64, with the weights and inputs that it had.

Everything that a test needs to know (seeds, sizes, hyper-parameters) comes from the files' own metadata.
"""

import importlib.util
import json
import pathlib

import numpy as np

from dgnet_jax.config import default_config
from dgnet_jax.interop import torch_names


def load_json(folder, name):
  return json.loads((pathlib.Path(folder) / f'{name}.json').read_text())


def load_npz(folder, name):
  with np.load(pathlib.Path(folder) / f'{name}.npz') as arrays:
    return dict(arrays)


def load_recipe(folder):
  """The goldens' own weights.py, as a module."""
  spec = importlib.util.spec_from_file_location('golden_weights', pathlib.Path(folder) / 'weights.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def images(recipe, shape, seed):
  """NHWC float64 images of the recipe."""
  return nhwc(recipe.make_images(shape, seed))


def nhwc(x):
  return np.moveaxis(x, -3, -1)


def nchw(x):
  return np.moveaxis(np.asarray(x), -1, -3)


def config_of(meta):
  """The config of a golden's metadata; hyper-parameters keep the release's defaults where the metadata names none."""
  config = default_config()
  config.data.image_size_hw = (meta['height'], meta['width'])
  config.batch_size = meta['batch']
  config.reid.batch_norm_group = 0
  config.teacher.last_stride = meta['teacher_stride']
  if 'pool' in meta:
    config.reid.pool = meta['pool']
  if 'ID_stride' in meta:
    config.reid.last_stride = meta['ID_stride']
  return config


ENTRIES = {
  'gen': torch_names.generator_entries,
  'dis': torch_names.discriminator_entries,
  'id': torch_names.reid_entries,
  'teacher': torch_names.teacher_entries,
}


def shapes_of(folder, network, num_identities):
  """State-dict shapes of the release's configuration for a class count."""
  name = {'id': 'id_AB_stride1_poolmax', 'teacher': 'teacher_ft_net_stride2'}.get(network, network)
  shapes = load_json(folder, 'shapes')[name]
  release_classes = 751
  return {
    key: [num_identities if size == release_classes and '.classifier.0.' in f'.{key}' else size for size in shape]
    for key, shape in shapes.items()
  }


def variables_of(folder, network, config, master_seed, num_identities):
  """Our variables of one network under a golden's master seed."""
  recipe = load_recipe(folder)
  shapes = shapes_of(folder, network, num_identities)
  state = recipe.make_state_dict(shapes, master_seed + recipe.NET_SEED_OFFSET[network])
  return torch_names.from_torch(state, ENTRIES[network](config))


def relative_error(actual, expected):
  """Largest difference over the largest size of the expected numbers."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape, f'{actual.shape=} {expected.shape=}'
  return np.max(np.abs(actual - expected)) / max(np.max(np.abs(expected)), 1e-300)
