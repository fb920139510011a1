"""Snapshots in the release's format, with random numbers and tiny networks."""

from collections import OrderedDict

import numpy as np
import yaml

from dgnet_jax.config.defaults import default_config
from dgnet_jax.interop.release.files import find_files
from dgnet_jax.interop.release.importer import import_release, variable_shapes
from dgnet_jax.interop.release.names import (
  NETWORKS,
  default_extras,
  in_release_order,
  network_entries,
  parameters_in_order,
)
from dgnet_jax.interop.release.optimizer import SLOTS
from dgnet_jax.interop.torch_names import torch_shapes
from dgnet_jax.interop.torch_write import write_torch
from tests.tiny_run import frozen

STEP = 6
NUM_IDENTITIES = 4


def tiny_config():
  """Sizes that compile in seconds and have every part of the release's."""
  config = default_config()
  config.batch_size = 4
  config.data.update(layout='synthetic', loader='memory', image_size_hw=(32, 16))
  config.data.synthetic.update(
    num_train_identities=4, num_test_identities=3, images_per_identity=4, num_distractors=1, num_junk=1
  )
  config.data.synthetic.image_size_hw = (32, 16)
  config.structure_encoder.update(width=2, num_res_blocks=1, dilations=(1, 1, 2))
  config.decoder.update(num_res_blocks=1, mlp_width=8)
  config.discriminator.update(width=4, num_scales=1, num_res_blocks=1)
  config.reid.update(stage_sizes=(1, 1), width=4, head_width=8, num_parts=2, input_scale=1)
  config.teacher.update(stage_sizes=(1, 1), width=4, head_width=8)
  config.evaluation.update(batch_size=16, num_swaps=2, num_ranked_queries=2, num_ground_truth_pairs=2)
  return config


# Fields that the release's files do not determine.
TINY_OVERRIDES = {
  'structure_encoder.dilations': '1,1,2',
  'reid.input_scale': '1',
  'data.layout': 'synthetic',
  'data.loader': 'memory',
  'data.root': 'data',
  'data.synthetic.num_train_identities': '4',
  'data.synthetic.num_test_identities': '3',
  'data.synthetic.images_per_identity': '4',
  'data.synthetic.num_distractors': '1',
  'data.synthetic.num_junk': '1',
  'data.synthetic.image_size_hw': '32,16',
  'evaluation.batch_size': '16',
  'evaluation.num_swaps': '2',
  'evaluation.num_ranked_queries': '2',
  'evaluation.num_ground_truth_pairs': '2',
}
TINY_SETTINGS = {
  'batch_size': 8,
  'max_iter': 7,
  'crop_image_height': 32,
  'crop_image_width': 16,
  'ID_class': 4,
  'ID_style': 'AB',
  'lr2': 0.003,
  'beta1': 0,
  'beta2': 0.999,
  'lr_policy': 'multistep',
  'warm_iter': 50,
  'warm_teacher_iter': 50,
  'log_iter': 1,
  'train_bn': True,
  'gen': {'dim': 2, 'mlp_dim': 8, 'n_res': 1},
  'dis': {'dim': 4, 'n_res': 1, 'num_scales': 1},
}
RATES = {'gen': 1e-4, 'dis': 1e-4, 'id': TINY_SETTINGS['lr2']}


def random_state_dict(shapes, seed):
  """Float32 arrays, and counters; variances are positive."""
  rng = np.random.default_rng(seed)
  state_dict = OrderedDict()
  for name, shape in shapes.items():
    if name.endswith('num_batches_tracked'):
      state_dict[name] = np.asarray(rng.integers(1, 1000), np.int64)
    else:
      array = 0.1 * rng.standard_normal(shape, np.float32)
      state_dict[name] = 1 + np.abs(array) if name.endswith('running_var') else array
  return state_dict


def random_optimizer(network, state_dict, step, seed):
  """The state of one optimizer; the ImageNet head has none."""
  rng = np.random.default_rng(seed)
  names = parameters_in_order(state_dict)
  state = {
    number: ({} if network == 'id' else {'step': step})
    | {slot: np.abs(rng.standard_normal(state_dict[name].shape, np.float32)) for slot in SLOTS[network]}
    for number, name in enumerate(names)
    if not name.startswith('model.fc.')
  }
  prefixes = dict.fromkeys(f'{name.partition(".")[0]}.' for name in names) if network == 'id' else ('',)
  groups = [
    {
      'lr': RATES[network] * (10 if prefix.startswith('classifier') else 1),
      'params': [i for i, name in enumerate(names) if name.startswith(prefix)],
    }
    for prefix in prefixes
  ]
  for group in groups if network != 'id' else ():
    group['betas'] = (0.0, 0.999)
  return {'state': state, 'param_groups': groups}


def write_release(folder, state_dicts, step, *, optimizer_step=None, settings=None):
  """Writes all files of one snapshot, those of the teacher to teacher/."""
  optimizers = {}
  for seed, (network, state_dict) in enumerate(state_dicts.items()):
    if network == 'teacher':
      write_torch(folder / 'teacher' / 'net_last.pth', state_dict)
      continue
    write_torch(folder / f'{network}_{step:08d}.pt', {'a': state_dict})
    count = step if optimizer_step is None else optimizer_step
    optimizers[network] = random_optimizer(network, state_dict, count, seed)
  write_torch(folder / 'optimizer.pt', optimizers)
  write_settings(folder, TINY_SETTINGS if settings is None else settings)
  (folder / 'teacher' / 'opts.yaml').write_text(yaml.safe_dump({'stride': 2, 'droprate': 0.5, 'lr': 0.05}))
  return folder


def write_settings(folder, settings):
  (folder / 'config.yaml').write_text(yaml.safe_dump(settings))


def tiny_shapes(config=None):
  """The release's names and shapes for a ConfigDict, by default the tiny one."""
  config = frozen(config or tiny_config())
  variables = variable_shapes(config, NUM_IDENTITIES)
  shapes = {}
  for network in NETWORKS:
    ours = torch_shapes(variables[network], network_entries(network, config))
    extras = {name: array.shape for name, array in default_extras(network, ours).items()}
    shapes[network] = {name: (ours | extras)[name] for name in in_release_order(ours | extras)}
  return shapes


def import_tiny(folder, workdir, *, step=None, without=(), overrides=None, drop=()):
  """Imports `folder` with the tiny overrides."""
  files = find_files(folder, folder / 'teacher', step=step, without=without)
  return import_release(files, workdir, overrides=TINY_OVERRIDES | (overrides or {}), drop=drop)
