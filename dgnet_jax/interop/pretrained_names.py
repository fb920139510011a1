"""Names of the arrays in files with ImageNet weights: torchvision's ResNet, IBN-Net's ResNet and torchreid's OSNet."""

from collections.abc import Iterable
import dataclasses

from dgnet_jax.config.network_schema import ReidConfig, TeacherConfig
from dgnet_jax.interop.torch_names import Entry, Path, batch_norm_entries, resnet_entries
from dgnet_jax.models.osnet import NUM_STREAMS
from dgnet_jax.models.resnet import IBN_STAGES

# What follows the last map: the layer and the classifier with which OSNet was trained. `strict.UNUSED_ARRAYS` has the
# `fc` of a ResNet.
UNUSED_ARRAYS = {'osnet': ('fc.0.*', 'fc.1.*', 'classifier.*')}


def pretrained_entries(config: ReidConfig | TeacherConfig) -> list[Entry]:
  """Returns the arrays that a file with weights for the backbone of `config` must have."""
  if config.backbone == 'osnet':
    return _osnet_entries(config.stage_sizes)
  entries = resnet_entries(config.stage_sizes)
  if config.backbone == 'resnet_ibn_a':
    entries = [split for entry in entries for split in _with_instance_norm(entry)]
  # Torchvision's names lack the release's prefix.
  return [dataclasses.replace(entry, name=entry.name.removeprefix('model.')) for entry in entries]


def _with_instance_norm(entry: Entry) -> list[Entry]:
  """Returns the arrays of IBN-Net a for one of a ResNet: the first norm of a block in the first stages is split."""
  part, *block, norm, array = entry.path
  if norm != 'norm_0' or int(block[-1].split('_')[1]) >= IBN_STAGES:
    return [entry]
  name, _, last = entry.name.rpartition('.')
  halves = {'BN': 'batch'} if part == 'batch_stats' else {'IN': 'instance', 'BN': 'batch'}
  return [
    dataclasses.replace(entry, name=f'{name}.{theirs}.{last}', path=(part, *block, norm, ours, array))
    for theirs, ours in halves.items()
  ]


def _osnet_entries(stage_sizes: Iterable[int]) -> list[Entry]:
  sizes = tuple(stage_sizes)
  entries = _conv_norm('conv1', ('stem',))
  for stage, num_blocks in enumerate(sizes):
    theirs = f'conv{stage + 2}'
    for i in range(num_blocks):
      entries += _block(f'{theirs}.{i}', f'stage_{stage}_block_{i}', projects=i == 0)
    if stage < len(sizes) - 1:
      entries += _conv_norm(f'{theirs}.{num_blocks}.0', (f'transition_{stage}',))
  return entries + _conv_norm(f'conv{len(sizes) + 2}', ('last',))


def _block(theirs: str, ours: str, *, projects: bool) -> list[Entry]:
  entries = _conv_norm(f'{theirs}.conv1', (ours, 'reduce')) + _conv_norm(f'{theirs}.conv3', (ours, 'expand'))
  if projects:
    entries += _conv_norm(f'{theirs}.downsample', (ours, 'project'))
  for length, letter in enumerate('abcd'[:NUM_STREAMS], start=1):
    for i in range(length):
      # A stream of one convolution is not a sequence, so that it has no number.
      name = f'{theirs}.conv2{letter}.{i}' if length > 1 else f'{theirs}.conv2{letter}'
      path = ('backbone', ours, f'stream_{length}_conv_{i}')
      entries.append(Entry(f'{name}.conv1.weight', ('params', *path, 'point', 'kernel'), 'conv'))
      entries.append(Entry(f'{name}.conv2.weight', ('params', *path, 'depth', 'kernel'), 'conv'))
      entries += batch_norm_entries(f'{name}.bn', (*path, 'norm'))
  for name, layer in (('fc1', 'reduce'), ('fc2', 'expand')):
    gate: Path = ('params', 'backbone', ours, 'gate', layer)
    entries.append(Entry(f'{theirs}.gate.{name}.weight', (*gate, 'kernel'), 'conv'))
    entries.append(Entry(f'{theirs}.gate.{name}.bias', (*gate, 'bias'), 'vector'))
  return entries


def _conv_norm(theirs: str, path: Path) -> list[Entry]:
  entry = Entry(f'{theirs}.conv.weight', ('params', 'backbone', *path, 'conv', 'kernel'), 'conv')
  return [entry, *batch_norm_entries(f'{theirs}.bn', ('backbone', *path, 'norm'))]
