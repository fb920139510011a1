"""Reads the goldens: values that the release computed in float64, with its weights and inputs.

Seeds, sizes and hyper-parameters come from the files' metadata.
"""

import importlib.util
import json
import pathlib

import jax
import numpy as np

from dgnet_jax.config import loading
from dgnet_jax.config.defaults import default_config
from dgnet_jax.interop import torch_names
from dgnet_jax.interop.release.config import config_fields, flatten
from dgnet_jax.interop.release.names import network_entries
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.types import PairBatch
from tests.tiny_run import frozen


def load_json(folder, name):
  return json.loads((pathlib.Path(folder) / f'{name}.json').read_text())


def load_npz(folder, name):
  with np.load(pathlib.Path(folder) / f'{name}.npz') as arrays:
    return dict(arrays)


def load_recipe(folder):
  """The goldens' weights.py, which makes their weights and inputs, as a module."""
  spec = importlib.util.spec_from_file_location('golden_weights', pathlib.Path(folder) / 'weights.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def images(recipe, shape, seed):
  """The recipe's images, float64 and NHWC."""
  return nhwc(recipe.make_images(shape, seed))


def nhwc(x):
  return np.moveaxis(x, -3, -1)


def nchw(x):
  return np.moveaxis(np.asarray(x), -1, -3)


def config_with(fields):
  """The default config with some fields, named with dots, replaced."""
  config = default_config()
  for name, value in fields.items():
    loading.set_field(config, name, value)
  return frozen(config)


def config_of(meta, **changes):
  """The config of a golden's metadata, with some top-level fields replaced.

  Hyper-parameters that the metadata does not name have the release's defaults.
  """
  theirs = meta.get('hyperparameters')
  if theirs is None:
    theirs = {'pool': meta['pool'], 'ID_stride': meta['ID_stride']}
  config = default_config()
  fields, _ = config_fields(flatten(theirs), 'golden')
  for name, value in fields.items():
    loading.set_field(config, name, value)
  if config.reid.style == 'PCB':  # not in the metadata, but in the shapes of the arrays
    config.reid.head_width = 256
  config.data.image_size_hw = (meta['height'], meta['width'])
  config.batch_size = meta['batch']
  config.reid.batch_norm_group = 0
  config.teacher.last_stride = meta['teacher_stride']
  for ramp in config.ramps.values() if 'iteration0' in meta else ():
    # The release keeps ramped weights as state, so a run that starts late starts with their initial values.
    ramp.start_step = max(ramp.start_step, meta['iteration0'] - 1)
  config.update(changes)
  return frozen(config)


def release_identities(folder):
  """The number of identities in shapes.json."""
  return load_json(folder, 'shapes')['id_AB_stride1_poolmax']['classifier1.classifier.0.weight'][0]


def shapes_of(folder, network, num_identities):
  """State-dict shapes of the release's configuration for a number of identities."""
  name = {'id': 'id_AB_stride1_poolmax', 'teacher': 'teacher_ft_net_stride2'}.get(network, network)
  shapes = load_json(folder, 'shapes')[name]
  release_count = release_identities(folder)
  return {
    key: [num_identities if size == release_count and '.classifier.0.' in f'.{key}' else size for size in shape]
    for key, shape in shapes.items()
  }


def pair_batch(recipe, meta, step):
  """The recipe's batch of one iteration as a PairBatch, float64."""
  raw = recipe.make_batch(
    meta['batch'], meta['height'], meta['width'], meta['hyperparameters']['ID_class'], meta['master_seed'], step
  )

  def streams(key):
    return np.stack([nhwc(raw[key.format(stream)]) for stream in 'ab'], axis=1)

  return PairBatch(
    image=streams('x_{}'),
    positive=streams('xp_{}'),
    erased_image=streams('x_{}_re'),
    erased_positive=streams('xp_{}_re'),
    identity=np.stack([raw['l_a'], raw['l_b']], axis=1),
  )


def our_shapes(network, config, num_identities):
  """The shapes of one of our networks by the release's names."""
  networks, teacher = make_networks(config, num_identities), make_teacher_network(config, num_identities)
  init = {
    'gen': lambda key: (networks.init_generator(key), {}),
    'dis': lambda key: (networks.init_discriminator(key), {}),
    'id': networks.init_reid,
    'teacher': teacher.init,
  }[network]
  params, batch_stats = jax.eval_shape(init, jax.random.key(0))
  blank = jax.tree.map(lambda x: np.broadcast_to(0.0, x.shape), {'params': params, 'batch_stats': batch_stats})
  entries = network_entries(network, config)
  assert len(entries) == len(jax.tree.leaves(blank)), 'some of our arrays have no name'
  return {name: array.shape for name, array in torch_names.to_torch(blank, entries).items()}


def variables_of(folder, network, config, master_seed, num_identities):
  """Variables of one of our networks for a golden's master seed; test_names covers names and shapes."""
  recipe = load_recipe(folder)
  shapes = our_shapes(network, config, num_identities)
  state = recipe.make_state_dict(shapes, master_seed + recipe.NET_SEED_OFFSET[network])
  return torch_names.from_torch(state, network_entries(network, config))


def merged(base, overrides):
  """Nested settings with some values overridden."""
  return base | {
    key: merged(base[key], value) if isinstance(value, dict) else value for key, value in overrides.items()
  }


def variant_meta(folder, golden):
  """A variant's metadata in the form of a step's: the released hyper-parameters with the variant's overrides."""
  step = load_json(folder, 'step_phase2')['meta']
  theirs = merged(step['hyperparameters'], golden.get('overrides', {}) | {'ID_class': golden['ID_class']})
  theirs = merged(theirs, {network: golden[network] for network in ('gen', 'dis') if network in golden})
  theirs |= golden.get('weights_before', {})
  if 'net' in golden:
    net = golden['net']
    theirs['ID_style'] = {'ft_netAB': 'AB', 'ft_net': 'normal', 'PCB': 'PCB'}[net['cls']]
    theirs |= {'norm_id': net.get('norm', False), 'pool': net.get('pool'), 'ID_stride': net.get('stride')}
  sizes = {name: golden[name] for name in ('master_seed', 'batch', 'height', 'width')}
  run = {'iteration0': golden.get('iteration', 0), 'rand': [golden.get('rand', 0)]}
  return sizes | run | {'teacher_stride': step['teacher_stride'], 'hyperparameters': theirs}


def relative_error(actual, expected):
  """The largest difference, relative to the largest expected magnitude."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape, f'{actual.shape=} {expected.shape=}'
  return np.max(np.abs(actual - expected)) / max(np.max(np.abs(expected)), 1e-300)
