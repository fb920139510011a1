"""ResNet, IBN-Net a and OSNet as PyTorch names their arrays and computes them: slowly, with NumPy, in float64.

Written from the papers' figures and the names in the programs' state dicts, apart from the networks under test. Maps
are [N, C, H, W].
"""

import numpy as np

EPSILON = 1e-5


class Shapes(dict):
  """Shapes by the names of a state dict."""

  def conv(self, name, features, channels, size, *, groups=1):
    self[f'{name}.weight'] = (features, channels // groups, size, size)

  def norm(self, name, channels, *, running=True):
    self |= dict.fromkeys((f'{name}.weight', f'{name}.bias'), (channels,))
    if running:
      self |= dict.fromkeys((f'{name}.running_mean', f'{name}.running_var'), (channels,))
      self[f'{name}.num_batches_tracked'] = ()

  def conv_norm(self, name, features, channels, size=1):
    self.conv(f'{name}.conv', features, channels, size)
    self.norm(f'{name}.bn', features)


def resnet_shapes(stage_sizes, width, *, ibn=False):
  shapes = Shapes()
  shapes.conv('conv1', width, 3, 7)
  shapes.norm('bn1', width)
  channels = width
  for stage, num_blocks in enumerate(stage_sizes, start=1):
    inner = width * 2 ** (stage - 1)
    for i in range(num_blocks):
      block = f'layer{stage}.{i}'
      shapes.conv(f'{block}.conv1', inner, channels, 1)
      if ibn and stage < 4:
        shapes.norm(f'{block}.bn1.IN', inner // 2, running=False)
        shapes.norm(f'{block}.bn1.BN', inner - inner // 2)
      else:
        shapes.norm(f'{block}.bn1', inner)
      shapes.conv(f'{block}.conv2', inner, inner, 3)
      shapes.norm(f'{block}.bn2', inner)
      shapes.conv(f'{block}.conv3', 4 * inner, inner, 1)
      shapes.norm(f'{block}.bn3', 4 * inner)
      if i == 0:
        shapes.conv(f'{block}.downsample.0', 4 * inner, channels, 1)
        shapes.norm(f'{block}.downsample.1', 4 * inner)
      channels = 4 * inner
  shapes |= {'fc.weight': (1000, channels), 'fc.bias': (1000,)}
  return shapes


def osnet_shapes(channels):
  """`channels` of the stem and of the three stages: 64, 256, 384, 512 is x1.0."""
  shapes = Shapes()
  shapes.conv_norm('conv1', channels[0], 3, 7)
  for stage in (2, 3, 4):
    before, after = channels[stage - 2 : stage]
    for i in range(2):
      block, inner = f'conv{stage}.{i}', after // 4
      shapes.conv_norm(f'{block}.conv1', inner, before if i == 0 else after)
      names = ['conv2a', *('conv2b.' + i for i in '01'), *('conv2c.' + i for i in '012')]
      for name in (*names, *('conv2d.' + i for i in '0123')):
        shapes.conv(f'{block}.{name}.conv1', inner, inner, 1)
        shapes.conv(f'{block}.{name}.conv2', inner, inner, 3, groups=inner)
        shapes.norm(f'{block}.{name}.bn', inner)
      hidden = max(inner // 16, 1)
      shapes |= {f'{block}.gate.fc1.weight': (hidden, inner, 1, 1), f'{block}.gate.fc1.bias': (hidden,)}
      shapes |= {f'{block}.gate.fc2.weight': (inner, hidden, 1, 1), f'{block}.gate.fc2.bias': (inner,)}
      shapes.conv_norm(f'{block}.conv3', after, inner)
      if i == 0:
        shapes.conv_norm(f'{block}.downsample', after, before)
    if stage < 4:
      shapes.conv_norm(f'conv{stage}.2.0', after, after)
  shapes.conv_norm('conv5', channels[3], channels[3])
  shapes |= {'fc.0.weight': (512, channels[3]), 'fc.0.bias': (512,)}
  shapes.norm('fc.1', 512)
  shapes |= {'classifier.weight': (1000, 512), 'classifier.bias': (1000,)}
  return shapes


def random_state_dict(shapes, seed=0):
  """Numbers with which every layer matters: variances are positive, and scales are around 1."""
  rng = np.random.default_rng(seed)

  def draw(name, shape):
    if name.endswith('num_batches_tracked'):
      return np.int64(9)
    if name.endswith('running_var'):
      return np.float32(rng.uniform(0.5, 2, shape))
    if len(shape) > 1:
      return np.float32(rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape))
    return np.float32(rng.normal(1 if name.endswith('weight') else 0, 0.3, shape))

  return {name: np.asarray(draw(name, shape)) for name, shape in shapes.items()}


def convolve(x, kernel, *, stride=1, bias=0.0):
  """Pads by half the kernel; a kernel [O, 1, k, k] for several channels is depthwise."""
  size = kernel.shape[-1]
  x = np.pad(x, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
  rows, columns = ((n - size) // stride + 1 for n in x.shape[2:])
  y = np.zeros((len(x), len(kernel), rows, columns))
  for i in range(rows):
    for j in range(columns):
      window = x[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
      if kernel.shape[1] == x.shape[1]:
        y[:, :, i, j] = np.einsum('nckl,ockl->no', window, kernel)
      else:
        y[:, :, i, j] = np.einsum('nckl,ckl->nc', window, kernel[:, 0])
  return y + np.reshape(bias, (-1, 1, 1))


def relu(x):
  return np.maximum(x, 0)


def max_pool(x):
  x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
  rows, columns = ((n - 3) // 2 + 1 for n in x.shape[2:])
  windows = [[x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((2, 3)) for j in range(columns)] for i in range(rows)]
  return np.array(windows).transpose(2, 3, 0, 1)


class Network:
  """Layers by their names in a state dict, at test time."""

  def __init__(self, state_dict):
    self.arrays = {name: np.float64(array) for name, array in state_dict.items()}

  def affine(self, x, name):
    return x * self.arrays[f'{name}.weight'][:, None, None] + self.arrays[f'{name}.bias'][:, None, None]

  def norm(self, x, name):
    if f'{name}.IN.weight' in self.arrays:
      half = len(self.arrays[f'{name}.IN.weight'])
      first, mean = x[:, :half], x[:, :half].mean((2, 3), keepdims=True)
      first = (first - mean) / np.sqrt(first.var((2, 3), keepdims=True) + EPSILON)
      return np.concatenate([self.affine(first, f'{name}.IN'), self.norm(x[:, half:], f'{name}.BN')], axis=1)
    mean, variance = (self.arrays[f'{name}.running_{which}'][:, None, None] for which in ('mean', 'var'))
    return self.affine((x - mean) / np.sqrt(variance + EPSILON), name)

  def conv(self, x, name, stride=1):
    return convolve(x, self.arrays[f'{name}.weight'], stride=stride)

  def resnet(self, x, stage_sizes, last_stride):
    x = max_pool(relu(self.norm(self.conv(x, 'conv1', 2), 'bn1')))
    for stage, num_blocks in enumerate(stage_sizes, start=1):
      for i in range(num_blocks):
        first = 1 if stage == 1 else last_stride if stage == len(stage_sizes) else 2
        x = self.bottleneck(x, f'layer{stage}.{i}', first if i == 0 else 1)
    return x

  def bottleneck(self, x, name, stride):
    y = relu(self.norm(self.conv(x, f'{name}.conv1'), f'{name}.bn1'))
    y = relu(self.norm(self.conv(y, f'{name}.conv2', stride), f'{name}.bn2'))
    y = self.norm(self.conv(y, f'{name}.conv3'), f'{name}.bn3')
    if f'{name}.downsample.0.weight' in self.arrays:
      x = self.norm(self.conv(x, f'{name}.downsample.0', stride), f'{name}.downsample.1')
    return relu(x + y)

  def conv_norm(self, x, name, stride=1):
    return self.norm(self.conv(x, f'{name}.conv', stride), f'{name}.bn')

  def osnet(self, x):
    x = max_pool(relu(self.conv_norm(x, 'conv1', 2)))
    for stage in (2, 3, 4):
      for i in range(2):
        x = self.omni_scale(x, f'conv{stage}.{i}')
      if stage < 4:
        x = relu(self.conv_norm(x, f'conv{stage}.2.0'))
        x = (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
    return relu(self.conv_norm(x, 'conv5'))

  def omni_scale(self, x, name):
    """y = x + sum over streams t of G(F^t(x)) * F^t(x), F^t of t lite 3x3 convolutions; G is shared (eq. 2 and 3)."""
    reduced, total = relu(self.conv_norm(x, f'{name}.conv1')), 0.0
    for length, letter in enumerate('abcd', start=1):
      y = reduced
      for i in range(length):
        light = f'{name}.conv2{letter}' + (f'.{i}' if length > 1 else '')
        y = self.conv(self.conv(y, f'{light}.conv1'), f'{light}.conv2')
        y = relu(self.norm(y, f'{light}.bn'))
      total = total + self.gate(y, f'{name}.gate') * y
    y = self.conv_norm(total, f'{name}.conv3')
    if f'{name}.downsample.conv.weight' in self.arrays:
      x = self.conv_norm(x, f'{name}.downsample')
    return relu(x + y)

  def gate(self, x, name):
    x = x.mean((2, 3), keepdims=True)
    for layer, activation in (('fc1', relu), ('fc2', lambda x: 1 / (1 + np.exp(-x)))):
      x = activation(convolve(x, self.arrays[f'{name}.{layer}.weight'], bias=self.arrays[f'{name}.{layer}.bias']))
    return x
