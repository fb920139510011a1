"""FID's Inception-v3 against a NumPy implementation that reads torch's state dict by name."""

import jax
import numpy as np
import pytest

from dgnet_jax.interop import inception as weights
from dgnet_jax.models.inception import MIN_SIZE, inception_features
from tests.interop.synthetic_inception import synthetic_inception


class NumpyInception:
  """In float64, with maps [N, C, H, W]."""

  def __init__(self, state_dict):
    self.state_dict = {name: array.astype(np.float64) for name, array in state_dict.items()}

  def conv(self, x, name, padding=(0, 0), stride=1):
    kernel = self.state_dict[f'{name}.conv.weight']
    x = np.pad(x, ((0, 0), (0, 0), *((margin, margin) for margin in padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    y = np.moveaxis(np.tensordot(windows, kernel, ((1, 4, 5), (1, 2, 3))), 3, 1)
    scale, bias, mean, variance = (
      self.state_dict[f'{name}.bn.{part}'][:, None, None] for part in ('weight', 'bias', 'running_mean', 'running_var')
    )
    return np.maximum((y - mean) / np.sqrt(variance + 0.001) * scale + bias, 0)

  def chain(self, x, block, *layers):
    for name, *options in layers:
      x = self.conv(x, f'{block}.{name}', *options)
    return x

  def pool(self, x, kind, padding=0, stride=1):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::stride, ::stride]
    return {'avg': np.nanmean, 'max': np.nanmax}[kind](windows, axis=(4, 5))

  def a(self, x, block):
    double = ('branch3x3dbl_1',), ('branch3x3dbl_2', (1, 1)), ('branch3x3dbl_3', (1, 1))
    return [
      self.chain(x, block, ('branch1x1',)),
      self.chain(x, block, ('branch5x5_1',), ('branch5x5_2', (2, 2))),
      self.chain(x, block, *double),
      self.chain(self.pool(x, 'avg', 1), block, ('branch_pool',)),
    ]

  def b(self, x, block):
    double = ('branch3x3dbl_1',), ('branch3x3dbl_2', (1, 1)), ('branch3x3dbl_3', (0, 0), 2)
    return [
      self.chain(x, block, ('branch3x3', (0, 0), 2)),
      self.chain(x, block, *double),
      self.pool(x, 'max', stride=2),
    ]

  def c(self, x, block):
    wide, high = (0, 3), (3, 0)
    double = [(f'branch7x7dbl_{i}', padding) for i, padding in zip((2, 3, 4, 5), (high, wide, high, wide), strict=True)]
    return [
      self.chain(x, block, ('branch1x1',)),
      self.chain(x, block, ('branch7x7_1',), ('branch7x7_2', wide), ('branch7x7_3', high)),
      self.chain(x, block, ('branch7x7dbl_1',), *double),
      self.chain(self.pool(x, 'avg', 1), block, ('branch_pool',)),
    ]

  def d(self, x, block):
    long = ('branch7x7x3_1',), ('branch7x7x3_2', (0, 3)), ('branch7x7x3_3', (3, 0)), ('branch7x7x3_4', (0, 0), 2)
    return [
      self.chain(x, block, ('branch3x3_1',), ('branch3x3_2', (0, 0), 2)),
      self.chain(x, block, *long),
      self.pool(x, 'max', stride=2),
    ]

  def e(self, x, block):
    single = self.chain(x, block, ('branch3x3_1',))
    double = self.chain(x, block, ('branch3x3dbl_1',), ('branch3x3dbl_2', (1, 1)))
    return [
      self.chain(x, block, ('branch1x1',)),
      self.chain(single, block, ('branch3x3_2a', (0, 1))),
      self.chain(single, block, ('branch3x3_2b', (1, 0))),
      self.chain(double, block, ('branch3x3dbl_3a', (0, 1))),
      self.chain(double, block, ('branch3x3dbl_3b', (1, 0))),
      self.chain(self.pool(x, 'avg' if block == 'Mixed_7b' else 'max', 1), block, ('branch_pool',)),
    ]

  def features(self, x):
    x = self.conv(x, 'Conv2d_1a_3x3', stride=2)
    x = self.conv(self.conv(x, 'Conv2d_2a_3x3'), 'Conv2d_2b_3x3', (1, 1))
    x = self.conv(self.pool(x, 'max', stride=2), 'Conv2d_3b_1x1')
    x = self.pool(self.conv(x, 'Conv2d_4a_3x3'), 'max', stride=2)
    for kind, blocks in (('a', '5b 5c 5d'), ('b', '6a'), ('c', '6b 6c 6d 6e'), ('d', '7a'), ('e', '7b 7c')):
      for block in blocks.split():
        x = np.concatenate(getattr(self, kind)(x, f'Mixed_{block}'), axis=1)
    return x.mean((2, 3))


@pytest.fixture(scope='module')
def state_dict():
  return synthetic_inception()


def test_features_equal_the_numpy_implementation(state_dict, monkeypatch, x64):
  monkeypatch.setattr(weights, 'read_weights', lambda path: state_dict)
  variables = jax.tree.map(lambda x: x.astype(np.float64), weights.load_inception('random.pth'))
  size = MIN_SIZE + 32  # the last maps are 2x2
  image = np.random.default_rng(1).uniform(-1, 1, (2, size, size - 7, 3))
  expected = NumpyInception(state_dict).features(image.transpose(0, 3, 1, 2))
  actual = np.asarray(inception_features(variables, image))
  assert actual.shape == expected.shape == (2, 2048) and actual.dtype == np.float64
  assert 1e-3 < expected.std() < 1e3 and (expected[0] != expected[1]).any()
  np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12 * expected.max())
