"""ImageNet weights for the backbones, in both kinds of files."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError
from dgnet_jax.interop.pretrained import check_pretrained, load_backbone
from dgnet_jax.interop.release.importer import templates
from dgnet_jax.interop.torch_names import imagenet_entries, torch_shapes
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.models.build import make_networks
from dgnet_jax.training import teacher_loop as teacher_module
from dgnet_jax.training.loop import train
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.state import create_train_state
from tests.data.folders import write_market
from tests.interop.synthetic_release import random_state_dict, tiny_config

PEOPLE = 3


def imagenet(config):
  """A state dict in torchvision's form: the backbone, counters and the classifier."""
  shapes = torch_shapes(templates(config, PEOPLE)['id'], imagenet_entries(config.reid.stage_sizes))
  shapes |= {'bn1.num_batches_tracked': (), 'fc.weight': (1000, 32), 'fc.bias': (1000,)}
  return random_state_dict(shapes, 0)


@pytest.fixture(params=['resnet.pth', 'resnet.safetensors'])
def file(request, tmp_path):
  path, state_dict = tmp_path / request.param, imagenet(tiny_config())
  if path.suffix == '.pth':
    write_torch(path, state_dict)
  else:
    safetensors.numpy.save_file(dict(state_dict), path)
  return path


def config_with(path, network='reid'):
  config = tiny_config()
  config[network].pretrained = str(path)
  return config


def test_layout(file):
  expected = imagenet(tiny_config())
  backbone = load_backbone(config_with(file), 'reid')
  np.testing.assert_array_equal(
    backbone['params']['stage_1_block_0']['conv_1']['kernel'],
    np.transpose(expected['layer2.0.conv2.weight'], (2, 3, 1, 0)),
  )
  stats = backbone['batch_stats']['stage_0_block_0']['project_norm']
  np.testing.assert_array_equal(stats['var'], expected['layer1.0.downsample.1.running_var'])


def test_a_fresh_state_starts_from_it(file):
  config = config_with(file)
  backbone = load_backbone(config, 'reid')
  networks, optimizers = make_networks(config, PEOPLE), make_optimizers(config.optimizer)
  fresh, started = (create_train_state(networks, optimizers, 0, start) for start in (None, backbone))
  jax.tree.map(np.testing.assert_array_equal, started.reid.params['backbone'], backbone['params'])
  jax.tree.map(np.testing.assert_array_equal, started.reid.batch_stats['backbone'], backbone['batch_stats'])
  jax.tree.map(np.testing.assert_array_equal, started.reid.params['fine_head'], fresh.reid.params['fine_head'])
  assert jax.tree.structure(started) == jax.tree.structure(fresh)


def test_the_teacher_starts_from_it(file, tmp_path, monkeypatch, lines):
  images = tuple(f'{person:04}_c{camera}s1_000{camera}51_00.jpg' for person in range(1, 9) for camera in (1, 2))
  (tmp_path / 'data').mkdir()
  index = read_layout(write_market(tmp_path / 'data', train=images))
  config = config_with(file, 'teacher')
  config.teacher.batch_size = 8
  make, seen = teacher_module.create_teacher_state, []

  class Stop(Exception):
    pass

  def watched(*args):
    seen.append(make(*args))
    raise Stop

  monkeypatch.setattr(teacher_module, 'create_teacher_state', watched)
  lines.clear()
  with pytest.raises(Stop):
    teacher_module.train_teacher(config, index, tmp_path / 'work')
  kernel = np.asarray(seen[0].network.params['backbone']['stem']['kernel'])
  np.testing.assert_array_equal(kernel, np.transpose(imagenet(config)['conv1.weight'], (2, 3, 1, 0)))
  assert f'teacher: backbone from {file}' in lines


def test_no_file_named():
  assert load_backbone(tiny_config(), 'reid') is None
  assert load_backbone(tiny_config(), 'teacher') is None


@pytest.mark.parametrize('network', ['reid', 'teacher'])
def test_another_network_is_told(file, network):
  config = config_with(file, network)
  config[network].update(width=8, stage_sizes=(1, 1, 1))
  with pytest.raises(UserError) as error:
    load_backbone(config, network)
  text = str(error.value)
  assert f'{network}.pretrained={file} does not fit' in text
  assert 'layer3.0.conv1.weight' in text and 'conv1.weight [4, 3, 7, 7], expected [8, 3, 7, 7]' in text


@pytest.mark.parametrize('name', ['absent.pth', 'absent.safetensors', 'damaged.pth', 'damaged.safetensors'])
def test_bad_files_are_told_before_anything_else(tmp_path, name):
  """Before the data are looked for, which are not there either."""
  if name.startswith('damaged'):
    (tmp_path / name).write_bytes(b'damaged' * 9)
  config = config_with(tmp_path / name)
  config.data.update(layout='market1501', root=str(tmp_path / 'no data'))
  with pytest.raises(UserError, match=name):
    train(config, tmp_path / 'work')
  assert not (tmp_path / 'work').exists()


def test_what_has_begun_needs_the_file_no_more(tmp_path):
  config = config_with(tmp_path / 'absent.pth')
  config.teacher.pretrained = str(tmp_path / 'absent.pth')
  for begun in ('checkpoints', 'teacher'):
    with pytest.raises(UserError, match='absent.pth: no such file'):
      check_pretrained(config, tmp_path)
    (tmp_path / begun).mkdir()
  check_pretrained(config, tmp_path)
