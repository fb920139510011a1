"""Every kind of backbone: its arrays in files of torchvision, IBN-Net and torchreid, and what it computes with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.interop.pretrained import load_backbone
from dgnet_jax.interop.pretrained_names import UNUSED_ARRAYS, pretrained_entries
from dgnet_jax.interop.strict import is_unused
from dgnet_jax.interop.torch_names import torch_shapes
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.models.backbones import make_backbone
from dgnet_jax.models.batch_norm import BatchNormMode
from dgnet_jax.models.build import make_teacher_network
from tests.interop.torch_networks import Network, osnet_shapes, random_state_dict, resnet_shapes
from tests.tiny_run import frozen, tiny_config

STAGES = {'resnet': (1, 2, 1, 1), 'resnet_ibn_a': (1, 2, 1, 2), 'osnet': (2, 2, 2)}


def config_with(**fields):
  config = tiny_config()
  config.teacher.update(fields)
  return frozen(config)


def state_dict_of(kind, width):
  if kind == 'osnet':
    return random_state_dict(osnet_shapes([width, 4 * width, 6 * width, 8 * width]))
  return random_state_dict(resnet_shapes(STAGES[kind], width, ibn=kind == 'resnet_ibn_a'))


@pytest.mark.parametrize(
  ('kind', 'last_stride'), [('resnet', 1), ('resnet', 2), ('resnet_ibn_a', 1), ('resnet_ibn_a', 2), ('osnet', 1)]
)
def test_imported_backbone_computes_what_the_paper_says(kind, last_stride, tmp_path, x64):
  state_dict = state_dict_of(kind, 4)
  write_torch(tmp_path / 'w.pth', state_dict)
  sizes = {'stage_sizes': STAGES[kind], 'width': 4, 'last_stride': last_stride}
  config = config_with(backbone=kind, pretrained=str(tmp_path / 'w.pth'), **sizes)
  variables = jax.tree.map(np.float64, load_backbone(config, 'teacher'))
  image = np.random.default_rng(1).normal(size=(2, 64, 48, 3))
  network = make_backbone(kind, *sizes.values(), None)
  features = network.apply(variables, jnp.asarray(image), BatchNormMode())
  reference = Network(state_dict)
  channels_first = image.transpose(0, 3, 1, 2)
  expected = (
    reference.osnet(channels_first) if kind == 'osnet' else reference.resnet(channels_first, STAGES[kind], last_stride)
  )
  assert features.dtype == np.float64 and np.asarray(features).std() > 0.1
  np.testing.assert_allclose(features, expected.transpose(0, 2, 3, 1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
  ('kind', 'stage_sizes', 'width', 'shapes', 'num_parameters'),
  [
    ('resnet', (3, 4, 6, 3), 64, resnet_shapes((3, 4, 6, 3), 64), 23_508_032),
    ('resnet', (3, 4, 23, 3), 64, resnet_shapes((3, 4, 23, 3), 64), 42_500_160),
    ('resnet', (3, 8, 36, 3), 64, resnet_shapes((3, 8, 36, 3), 64), 58_143_808),
    ('resnet_ibn_a', (3, 4, 6, 3), 64, resnet_shapes((3, 4, 6, 3), 64, ibn=True), 23_508_032),
    ('resnet_ibn_a', (3, 4, 23, 3), 64, resnet_shapes((3, 4, 23, 3), 64, ibn=True), 42_500_160),
    # torchreid prints 2,193,616: with the layer `fc`, and with the gates, which run four times, counted four times.
    ('osnet', (2, 2, 2), 64, osnet_shapes([64, 256, 384, 512]), 2_193_616 - 263_680 - 3 * 8_036),
    ('osnet', (2, 2, 2), 48, osnet_shapes([48, 192, 288, 384]), None),
    ('osnet', (2, 2, 2), 16, osnet_shapes([16, 64, 96, 128]), None),
  ],
  ids=[
    'ResNet-50',
    'ResNet-101',
    'ResNet-152',
    'ResNet-50 IBN-a',
    'ResNet-101 IBN-a',
    'OSNet x1.0',
    'OSNet x0.75',
    'OSNet x0.25',
  ],
)
def test_full_sizes_have_the_arrays_of_their_files(kind, stage_sizes, width, shapes, num_parameters):
  config = config_with(backbone=kind, stage_sizes=stage_sizes, width=width, last_stride=1)
  params, batch_stats = jax.eval_shape(make_teacher_network(config, 2).init, jax.random.key(0))
  entries = pretrained_entries(config.teacher)
  ours = torch_shapes({'params': params, 'batch_stats': batch_stats}, entries)
  tops = {pattern.rstrip('*') for pattern in UNUSED_ARRAYS.get(kind, ())}
  expected = {name: shape for name, shape in shapes.items() if not is_unused(name) and not name.startswith(tuple(tops))}
  assert ours == expected
  leaves = jax.tree.leaves((params['backbone'], batch_stats['backbone']))
  assert len(ours) == len(leaves) == len({entry.path for entry in entries})
  count = sum(leaf.size for leaf in jax.tree.leaves(params['backbone']))
  assert num_parameters in (None, count)


@pytest.mark.parametrize(
  ('kind', 'file', 'words'),
  [
    ('resnet', 'resnet_ibn_a', 'unexpected: layer1.0.bn1.IN.weight'),
    ('resnet_ibn_a', 'resnet', 'missing: layer1.0.bn1.IN.weight'),
    ('osnet', 'resnet', 'missing: conv1.conv.weight'),
    ('resnet', 'osnet', 'unexpected: .*classifier.weight'),
  ],
)
def test_file_of_another_kind_is_refused(kind, file, words, tmp_path):
  write_torch(tmp_path / 'w.pth', state_dict_of(file, 4))
  sizes = {'stage_sizes': STAGES[kind], 'width': 4, 'last_stride': 1}
  config = config_with(backbone=kind, pretrained=str(tmp_path / 'w.pth'), **sizes)
  with pytest.raises(UserError, match=words) as error:
    load_backbone(config, 'teacher')
  assert f'teacher.pretrained={tmp_path / "w.pth"} does not fit' in str(error.value)
