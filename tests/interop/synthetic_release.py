"""Checkpoints in the release's form, with random numbers."""

from collections import OrderedDict

import numpy as np
import yaml

from dgnet_jax.config.defaults import default_config
from dgnet_jax.interop.release.files import find_files
from dgnet_jax.interop.release.importer import import_release, templates
from dgnet_jax.interop.release.names import ENTRIES, default_extras, in_release_order, parameters_in_order
from dgnet_jax.interop.torch_names import torch_shapes
from dgnet_jax.interop.torch_write import write_torch

STEP = 6
PEOPLE = 4
SLOTS = {'gen': ('exp_avg', 'exp_avg_sq'), 'dis': ('exp_avg', 'exp_avg_sq'), 'id': ('momentum_buffer',)}


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


# What the release's files do not tell.
TINY_OVERRIDES = {
  'structure_encoder.dilations': '1,1,2',
  'reid.input_scale': '1',
  'data.layout': 'synthetic',
  'data.loader': 'memory',
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
TINY_YAML = {
  'batch_size': 8,
  'max_iter': 7,
  'crop_image_height': 32,
  'crop_image_width': 16,
  'ID_class': 4,
  'ID_style': 'AB',
  'lr2': 0.003,
  'warm_iter': 50,
  'warm_teacher_iter': 50,
  'log_iter': 1,
  'train_bn': True,
  'gen': {'dim': 2, 'mlp_dim': 8, 'n_res': 1},
  'dis': {'dim': 4, 'n_res': 1, 'num_scales': 1},
}


def random_state_dict(shapes, seed):
  """Float32 arrays, and counters; variances are positive."""
  draw = np.random.default_rng(seed)
  made = OrderedDict()
  for name, shape in shapes.items():
    if name.endswith('num_batches_tracked'):
      made[name] = np.asarray(draw.integers(1, 1000), np.int64)
    else:
      array = 0.1 * draw.standard_normal(shape, np.float32)
      made[name] = 1 + np.abs(array) if name.endswith('running_var') else array
  return made


def random_optimizer(network, state_dict, step, seed):
  """The state of one of the release's optimisers; the ImageNet head has none."""
  draw = np.random.default_rng(seed)
  names = parameters_in_order(state_dict)
  state = {
    number: ({} if network == 'id' else {'step': step})
    | {slot: np.abs(draw.standard_normal(state_dict[name].shape, np.float32)) for slot in SLOTS[network]}
    for number, name in enumerate(names)
    if not name.startswith('model.fc.')
  }
  prefixes = dict.fromkeys(f'{name.partition(".")[0]}.' for name in names) if network == 'id' else ('',)
  groups = [{'params': [i for i, name in enumerate(names) if name.startswith(prefix)]} for prefix in prefixes]
  return {'state': state, 'param_groups': groups}


def write_release(folder, state_dicts, step, *, optimizer_step=None, settings=None):
  """All files of one snapshot, the teacher's in teacher/."""
  optimizer = {}
  for seed, (network, state_dict) in enumerate(state_dicts.items()):
    if network == 'teacher':
      write_torch(folder / 'teacher' / 'net_last.pth', state_dict)
      continue
    write_torch(folder / f'{network}_{step:08d}.pt', {'a': state_dict})
    optimizer[network] = random_optimizer(network, state_dict, step if optimizer_step is None else optimizer_step, seed)
  write_torch(folder / 'optimizer.pt', optimizer)
  (folder / 'config.yaml').write_text(yaml.safe_dump(TINY_YAML if settings is None else settings))
  (folder / 'teacher' / 'opts.yaml').write_text(yaml.safe_dump({'stride': 2, 'droprate': 0.5, 'lr': 0.05}))
  return folder


def silent(line):
  del line


def tiny_shapes(config=None):
  """The release's names and shapes for tiny sizes."""
  config = config or tiny_config()
  forms = templates(config, PEOPLE)
  shapes = {}
  for network, form in forms.items():
    ours = torch_shapes(form, ENTRIES[network](config))
    extras = {name: array.shape for name, array in default_extras(network, ours).items()}
    shapes[network] = {name: (ours | extras)[name] for name in in_release_order(ours | extras)}
  return shapes


def bring(folder, workdir, *, log=silent, teacher='teacher', **options):
  """Imports `folder` with tiny settings."""
  data = {'data.root': 'data'}
  finding = {name: options.pop(name) for name in ('step', 'without') if name in options}
  files = find_files(folder, teacher and folder / teacher, **finding)
  return import_release(files, workdir, overrides=TINY_OVERRIDES | data, **options)
