"""ImageNet weights for the backbones, in both file formats."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy

from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError
from dgnet_jax.interop.pretrained import check_pretrained, load_backbone
from dgnet_jax.interop.pretrained_names import pretrained_entries
from dgnet_jax.interop.release.importer import variable_shapes
from dgnet_jax.interop.torch_names import torch_shapes
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.models.build import make_networks
from dgnet_jax.training import teacher_loop as teacher_module
from dgnet_jax.training.loop import train
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.state import create_train_state
from tests.data.folders import write_market
from tests.interop.synthetic_release import random_state_dict, tiny_config
from tests.tiny_run import frozen

NUM_IDENTITIES = 3


def imagenet(config):
  """A state dict in torchvision's format: the backbone, counters and the classifier."""
  shapes = torch_shapes(variable_shapes(config, NUM_IDENTITIES)['id'], pretrained_entries(config.reid))
  shapes |= {'bn1.num_batches_tracked': (), 'fc.weight': (1000, 32), 'fc.bias': (1000,)}
  return random_state_dict(shapes, 0)


@pytest.fixture(params=['resnet.pth', 'resnet.safetensors'])
def file(request, tmp_path):
  path, state_dict = tmp_path / request.param, imagenet(frozen(tiny_config()))
  if path.suffix == '.pth':
    write_torch(path, state_dict)
  else:
    safetensors.numpy.save_file(dict(state_dict), path)
  return path


def config_with(path, network='reid', **fields):
  config = tiny_config()
  config[network].update(pretrained=str(path), **fields)
  return frozen(config)


def test_axes_are_transposed(file):
  expected = imagenet(frozen(tiny_config()))
  backbone = load_backbone(config_with(file), 'reid')
  np.testing.assert_array_equal(
    backbone['params']['stage_1_block_0']['conv_1']['kernel'],
    np.transpose(expected['layer2.0.conv2.weight'], (2, 3, 1, 0)),
  )
  stats = backbone['batch_stats']['stage_0_block_0']['project_norm']
  np.testing.assert_array_equal(stats['var'], expected['layer1.0.downsample.1.running_var'])


@pytest.mark.parametrize('form', ['file', 'nested', 'prefix', 'both'])
def test_what_training_programs_put_around_weights_is_taken_off(tmp_path, lines, form):
  state_dict, path = imagenet(frozen(tiny_config())), tmp_path / 'w.pth'
  prefix = '' if form in ('file', 'nested') else 'module.'
  content = {prefix + name: array for name, array in state_dict.items()}
  write_torch(path, content if form in ('file', 'prefix') else {'epoch': 3, 'state_dict': content, 'arch': 'resnet50'})
  backbone = load_backbone(config_with(path), 'reid')
  np.testing.assert_array_equal(
    backbone['params']['stem']['kernel'], np.transpose(state_dict['conv1.weight'], (2, 3, 1, 0))
  )
  assert ("read 'state_dict' of 'epoch', 'state_dict', 'arch'" in ' '.join(lines)) == (form in ('nested', 'both'))
  assert ('removed module. from the names of all arrays' in ' '.join(lines)) == (form in ('prefix', 'both'))


def test_a_file_without_a_state_dict_says_what_it_has(tmp_path):
  write_torch(tmp_path / 'w.pth', {'epoch': 3, 'weights_of_the_best': {'conv1.weight': np.ones(3, np.float32)}})
  with pytest.raises(UserError, match="not a state dict .* it has 'epoch', 'weights_of_the_best'"):
    load_backbone(config_with(tmp_path / 'w.pth'), 'reid')


def test_new_state_starts_with_the_backbone(file):
  config = config_with(file)
  backbone = load_backbone(config, 'reid')
  networks, optimizers = make_networks(config, NUM_IDENTITIES), make_optimizers(config)
  fresh, started = (create_train_state(networks, optimizers, 0, start) for start in (None, backbone))
  jax.tree.map(np.testing.assert_array_equal, started.reid.params['backbone'], backbone['params'])
  jax.tree.map(np.testing.assert_array_equal, started.reid.batch_stats['backbone'], backbone['batch_stats'])
  jax.tree.map(np.testing.assert_array_equal, started.reid.params['fine_head'], fresh.reid.params['fine_head'])
  assert jax.tree.structure(started) == jax.tree.structure(fresh)


def test_teacher_starts_with_the_backbone(file, tmp_path, monkeypatch, lines):
  images = tuple(f'{person:04}_c{camera}s1_000{camera}51_00.jpg' for person in range(1, 9) for camera in (1, 2))
  (tmp_path / 'data').mkdir()
  index = read_layout(write_market(tmp_path / 'data', train=images))
  config = config_with(file, 'teacher', batch_size=8)
  make, seen = teacher_module.create_teacher_state, []

  class Stop(Exception):
    pass

  def watched(*args):
    seen.append(make(*args))
    raise Stop

  monkeypatch.setattr(teacher_module, 'create_teacher_state', watched)
  with pytest.raises(Stop):
    teacher_module.train_teacher(config, index, tmp_path / 'work')
  kernel = np.asarray(seen[0].network.params['backbone']['stem']['kernel'])
  np.testing.assert_array_equal(kernel, np.transpose(imagenet(config)['conv1.weight'], (2, 3, 1, 0)))
  assert f'teacher: backbone from {file}' in lines


def test_without_a_file_there_is_no_backbone():
  config = frozen(tiny_config())
  assert load_backbone(config, 'reid') is None and load_backbone(config, 'teacher') is None


@pytest.mark.parametrize('network', ['reid', 'teacher'])
def test_weights_of_another_network_are_rejected(file, network):
  config = config_with(file, network, width=8, stage_sizes=(1, 1, 1))
  with pytest.raises(UserError) as error:
    load_backbone(config, network)
  message = str(error.value)
  assert f'{network}.pretrained={file} does not fit' in message
  assert '--drop-extra' not in message  # it is a flag of `dgnet convert`
  assert 'layer3.0.conv1.weight' in message and 'conv1.weight [4, 3, 7, 7], expected [8, 3, 7, 7]' in message


@pytest.mark.parametrize('name', ['absent.pth', 'absent.safetensors', 'damaged.pth', 'damaged.safetensors'])
def test_unreadable_files_are_reported_before_work_starts(tmp_path, name):
  """Even before the missing data set."""
  if name.startswith('damaged'):
    (tmp_path / name).write_bytes(b'damaged' * 9)
  config = config_with(tmp_path / name)
  data = dataclasses.replace(config.data, layout='market1501', root=str(tmp_path / 'no data'))
  config = dataclasses.replace(config, data=data)
  with pytest.raises(UserError, match=name):
    train(config, tmp_path / 'work')
  assert not (tmp_path / 'work').exists()


def test_files_are_not_needed_to_resume(tmp_path):
  config = config_with(tmp_path / 'absent.pth')
  teacher = dataclasses.replace(config.teacher, pretrained=str(tmp_path / 'absent.pth'))
  config = dataclasses.replace(config, teacher=teacher)
  for folder in ('checkpoints', 'teacher'):
    with pytest.raises(UserError, match='absent.pth: no such file'):
      check_pretrained(config, tmp_path)
    (tmp_path / folder).mkdir()
  check_pretrained(config, tmp_path)
