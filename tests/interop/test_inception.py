"""The weights of FID's Inception-v3: names, shapes and layouts, with random numbers."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from dgnet_jax.errors import UserError
from dgnet_jax.interop import inception
from dgnet_jax.interop.inception import load_inception
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.models.inception import variable_shapes
from tests.interop.synthetic_inception import file_shapes, synthetic_inception

# Some arrays of torchvision's Inception3, by hand.
KNOWN = {
  'Conv2d_1a_3x3.conv.weight': (32, 3, 3, 3),
  'Conv2d_4a_3x3.conv.weight': (192, 80, 3, 3),
  'Mixed_5b.branch1x1.conv.weight': (64, 192, 1, 1),
  'Mixed_5b.branch_pool.conv.weight': (32, 192, 1, 1),
  'Mixed_5d.branch5x5_2.conv.weight': (64, 48, 5, 5),
  'Mixed_6a.branch3x3.conv.weight': (384, 288, 3, 3),
  'Mixed_6b.branch7x7_2.conv.weight': (128, 128, 1, 7),
  'Mixed_6c.branch7x7dbl_2.conv.weight': (160, 160, 7, 1),
  'Mixed_6e.branch7x7dbl_5.bn.running_var': (192,),
  'Mixed_7a.branch7x7x3_4.conv.weight': (192, 192, 3, 3),
  'Mixed_7b.branch3x3dbl_1.conv.weight': (448, 1280, 1, 1),
  'Mixed_7c.branch3x3_2a.conv.weight': (384, 384, 1, 3),
  'Mixed_7c.branch3x3dbl_3b.conv.weight': (384, 384, 3, 1),
  'Mixed_7c.branch_pool.bn.bias': (192,),
}
PARAMETERS = 23_834_568  # torchvision's with 1000 classes and without the auxiliary classifier


@pytest.fixture(scope='module')
def state_dict():
  return synthetic_inception()


def test_names_and_shapes_by_hand():
  shapes = file_shapes()
  assert {name: shapes[name] for name in KNOWN} == KNOWN
  assert sum(name.endswith('.conv.weight') for name in shapes) == 94
  trained = sum(int(np.prod(s)) for n, s in shapes.items() if n.endswith(('.weight', '.bias')))
  assert trained == PARAMETERS + 8 * 2049


@pytest.mark.parametrize('name', ['fid.pth', 'fid.safetensors'])
def test_arrays_are_loaded_from_either_format(tmp_path, state_dict, name):
  if name.endswith('.pth'):
    write_torch(tmp_path / name, state_dict)
  else:
    safetensors.numpy.save_file(dict(state_dict), tmp_path / name)
  variables = load_inception(tmp_path / name)
  form = variable_shapes()
  assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, form)
  layer = variables['params']['Mixed_6b']['branch7x7_2']
  expected = state_dict['Mixed_6b.branch7x7_2.conv.weight']
  np.testing.assert_array_equal(layer['conv']['kernel'], np.transpose(expected, (2, 3, 1, 0)))
  np.testing.assert_array_equal(layer['bn']['scale'], state_dict['Mixed_6b.branch7x7_2.bn.weight'])
  variance = variables['batch_stats']['Mixed_7c']['branch1x1']['bn']['var']
  np.testing.assert_array_equal(variance, state_dict['Mixed_7c.branch1x1.bn.running_var'])


def load(monkeypatch, state_dict):
  monkeypatch.setattr(inception, 'read_weights', lambda path: state_dict)
  return load_inception('fid.pth')


def test_classifier_and_counters_may_be_missing(monkeypatch, state_dict):
  bare = {n: x for n, x in state_dict.items() if not n.startswith('fc.') and not n.endswith('tracked')}
  assert len(bare) == 5 * 94
  assert 'fc' not in load(monkeypatch, bare)['params'] and 'fc' not in load(monkeypatch, state_dict)['params']


def test_all_problems_are_reported(monkeypatch, state_dict):
  wrong = dict(state_dict)
  del wrong['Mixed_5b.branch1x1.conv.weight'], wrong['Mixed_7c.branch_pool.bn.running_var']
  wrong['Mixed_6a.branch3x3.conv.weight'] = np.zeros((384, 288, 1, 1), np.float32)
  wrong['Mixed_6a.branch3x3.bn.bias'] = np.zeros(384, np.int64)
  with pytest.raises(UserError) as error:
    load(monkeypatch, wrong)
  message = str(error.value)
  assert "fid.pth, read as the weights of FID's Inception-v3, does not fit" in message
  assert (
    '2 missing: ' in message and 'Mixed_5b.branch1x1.conv.weight' in message and 'branch_pool.bn.running_var' in message
  )
  assert 'Mixed_6a.branch3x3.conv.weight [384, 288, 1, 1], expected [384, 288, 3, 3]' in message
  assert 'Mixed_6a.branch3x3.bn.bias is int64' in message


def test_torchvisions_own_weights_are_rejected(monkeypatch, state_dict):
  own = state_dict | {
    'fc.weight': np.zeros((1000, 2048), np.float32),
    'fc.bias': np.zeros(1000, np.float32),
    'AuxLogits.conv0.conv.weight': np.zeros((128, 768, 1, 1), np.float32),
  }
  with pytest.raises(UserError) as error:
    load(monkeypatch, own)
  message = str(error.value)
  assert 'fc.weight [1000, 2048], expected [1008, 2048]' in message and 'fc.bias [1000], expected [1008]' in message
  assert '1 unexpected: AuxLogits.conv0.conv.weight' in message and '--drop-extra' not in message
