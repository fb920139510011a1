"""Reads the goldens: numbers that the release computed in float64, with the weights and inputs that it had.

Everything that a test needs to know (seeds, sizes, hyper-parameters) comes from the files' own metadata.
"""

import importlib.util
import json
import pathlib

import jax
import numpy as np

from dgnet_jax.config import default_config
from dgnet_jax.interop import torch_names
from dgnet_jax.losses.distillation import LABEL_STYLES
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.types import PairBatch


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
  if 'hyperparameters' in meta:
    return _with_hyperparameters(config, meta['hyperparameters'], meta['iteration0'])
  config.reid.pool = meta['pool']
  config.reid.last_stride = meta['ID_stride']
  return config


NORMS = {'none': 'none', 'in': 'instance', 'bn': 'batch', 'ln': 'layer'}


def _with_style(config, theirs):
  """The release's re-id network; what its styles normal and PCB do not read has their fixed value (fact 33)."""
  style = theirs['ID_style']
  config.reid.style = style
  config.reid.normalize_code = theirs['norm_id'] and style == 'normal'
  config.reid.last_stride = 2 if style == 'normal' else 1 if style == 'PCB' else theirs['ID_stride']
  config.reid.pool = 'avg' if style == 'PCB' else theirs['pool']
  config.reid.head_width = 256 if style == 'PCB' else 512
  return config


def _with_kinds(config, theirs):
  """The kinds of layers of generator and discriminator."""
  gen, dis = theirs['gen'], theirs['dis']
  activations = {'lrelu': 'leaky_relu'}
  config.generator.activation = activations.get(gen['activ'], gen['activ'])
  config.generator.padding = gen['pad_type']
  config.structure_encoder.input, config.structure_encoder.tanh = theirs['single'], gen['tanh']
  config.decoder.block, config.decoder.non_local = gen['dec'], gen['non_local']
  config.decoder.mlp_norm = NORMS[gen['mlp_norm']]
  config.discriminator.gan_type, config.discriminator.non_local = dis['gan_type'], dis['non_local']
  config.discriminator.norm, config.discriminator.padding = NORMS[dis['norm']], dis['pad_type']
  config.discriminator.activation = activations.get(dis['activ'], dis['activ'])
  return config


def _with_hyperparameters(config, theirs, first_iteration):
  """The release's yaml in our words."""
  # The trainer builds its teacher with the default, average pooling.
  config = _with_kinds(_with_style(config, theirs), theirs)
  config.augment.random_erasing_prob = theirs['erasing_p']
  config.discriminator.r1_weight = theirs['dis']['LAMBDA']
  config.discriminator.width = theirs['dis']['dim']
  config.discriminator.num_scales = theirs['dis']['num_scales']
  config.discriminator.num_res_blocks = theirs['dis']['n_res']
  config.structure_encoder.width = theirs['gen']['dim']
  config.structure_encoder.num_res_blocks = config.decoder.num_res_blocks = theirs['gen']['n_res']
  config.decoder.mlp_width = theirs['gen']['mlp_dim']
  config.structure_encoder_update_prob = theirs['use_encoder_again']
  config.optimizer.generator_learning_rate = theirs['lr_g']
  config.optimizer.discriminator_learning_rate = theirs['lr_d']
  config.optimizer.reid_learning_rate = theirs['lr2']
  config.optimizer.weight_decay = theirs['weight_decay']
  config.optimizer.decay_steps = theirs['step_size']
  config.optimizer.gan_decay, config.optimizer.reid_decay = theirs['gamma'], theirs['gamma2']
  for ours, name in (
    ('adversarial', 'gan_w'),
    ('self_reconstruction', 'recon_x_w'),
    ('positive_reconstruction', 'recon_xp_w'),
    ('cross_identity', 'recon_id_w'),
    ('identity', 'id_w'),
    ('positive_identity', 'pid_w'),
  ):
    config.weights[ours] = float(theirs[name])
  for ours, weight, maximum, start in (
    ('structure_code', 'recon_s_w', 'max_w', 'warm_iter'),
    ('appearance_code', 'recon_f_w', 'max_w', 'warm_iter'),
    ('cycle', 'recon_x_cyc_w', 'max_cyc_w', 'warm_iter'),
    ('teaching', 'teacher_w', 'max_teacher_w', 'warm_teacher_iter'),
  ):
    ramp = config.ramps[ours]
    ramp.initial, ramp.maximum, ramp.per_step = float(theirs[weight]), float(theirs[maximum]), theirs['warm_scale']
    # The release keeps a ramped weight as state: a run that starts late starts from its initial value.
    ramp.start_step = max(theirs[start], first_iteration - 1)
  if config.reid.style == 'PCB':  # the release names the weight and never adds the loss
    config.ramps.teaching.update(initial=0.0, maximum=0.0)
  config.teaching.label_style = LABEL_STYLES[theirs['teacher_style']]
  config.teaching.primary = float(theirs.get('T_w', 1.0))
  config.teaching.fine_grained = float(theirs['B_w'])
  config.teaching.teacher_norm = 'batch' if theirs['train_bn'] else 'running'
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


def pair_batch(recipe, meta, step):
  """The recipe's batch of one iteration as our PairBatch, float64, and the release's labels in it."""
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
  """The shapes of one network of ours under the release's names."""
  networks, teacher = make_networks(config, num_identities), make_teacher_network(config, num_identities)
  init = {
    'gen': lambda key: (networks.init_generator(key), {}),
    'dis': lambda key: (networks.init_discriminator(key), {}),
    'id': networks.init_reid,
    'teacher': teacher.init,
  }[network]
  params, batch_stats = jax.eval_shape(init, jax.random.key(0))
  blank = jax.tree.map(lambda x: np.broadcast_to(0.0, x.shape), {'params': params, 'batch_stats': batch_stats})
  entries = ENTRIES[network](config)
  assert len(entries) == len(jax.tree.leaves(blank)), 'names for some of our arrays only'
  return {name: array.shape for name, array in torch_names.to_torch(blank, entries).items()}


def variables_of(folder, network, config, master_seed, num_identities):
  """Our variables of one network under a golden's master seed; test_names holds their names and shapes."""
  recipe = load_recipe(folder)
  shapes = our_shapes(network, config, num_identities)
  state = recipe.make_state_dict(shapes, master_seed + recipe.NET_SEED_OFFSET[network])
  return torch_names.from_torch(state, ENTRIES[network](config))


def merged(base, overrides):
  """A yaml with another's values on top."""
  return base | {
    key: merged(base[key], value) if isinstance(value, dict) else value for key, value in overrides.items()
  }


def variant_meta(folder, golden):
  """A variant's metadata in the form of a step's: the released hyper-parameters with the variant's own on top."""
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
  """Largest difference over the largest size of the expected numbers."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape, f'{actual.shape=} {expected.shape=}'
  return np.max(np.abs(actual - expected)) / max(np.max(np.abs(expected)), 1e-300)
