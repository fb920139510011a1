"""Maps the arrays of the release's state dicts to our parameter trees.

Paths of BatchNorm statistics begin with 'batch_stats', all other paths with 'params'.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

import numpy as np

from dgnet_jax.config.network_schema import (
  DecoderConfig,
  DiscriminatorConfig,
  GeneratorConfig,
  ReidConfig,
  StructureEncoderConfig,
  TeacherConfig,
)

Path = tuple[str, ...]

# Order of the axes by kind of array.
_TO_OURS = {'conv': (2, 3, 1, 0), 'linear': (1, 0), 'vector': (0,)}
_TO_TORCH = {'conv': (3, 2, 0, 1), 'linear': (1, 0), 'vector': (0,)}
_NORM_NAMES = {'layer': ('gamma', 'beta'), 'batch': ('weight', 'bias')}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One array.

  Attributes:
    name: name in the state dict.
    path: path in our variables.
    kind: conv ([out, in, h, w] in the state dict, [h, w, in, out] here), linear ([out, in] and [in, out]) or vector.
  """

  name: str
  path: Path
  kind: str


def _conv(name: str, path: Path, *, activation: str = 'none', norm: str = 'none') -> list[Entry]:
  """Lists the arrays of a convolution with the parameters of its activation and normalization."""
  entries = [
    Entry(f'{name}.conv.weight', (*path, 'conv', 'kernel'), 'conv'),
    Entry(f'{name}.conv.bias', (*path, 'conv', 'bias'), 'vector'),
  ]
  if norm in _NORM_NAMES:
    scale, bias = _NORM_NAMES[norm]
    entries.append(Entry(f'{name}.norm.{scale}', (*path, 'norm', 'scale'), 'vector'))
    entries.append(Entry(f'{name}.norm.{bias}', (*path, 'norm', 'bias'), 'vector'))
  return entries + _activation(name, (*path, 'activation'), activation)


def _activation(name: str, path: Path, activation: str) -> list[Entry]:
  return [Entry(f'{name}.activation.weight', (*path, 'slope'), 'vector')] if activation == 'prelu' else []


def _residual(name: str, path: Path, *, activation: str, norm: str = 'none') -> list[Entry]:
  first = _conv(f'{name}.model.0', (*path, 'conv_0'), activation=activation, norm=norm)
  return first + _conv(f'{name}.model.1', (*path, 'conv_1'), norm=norm)


def _non_local(name: str, path: Path) -> list[Entry]:
  entries = [Entry(f'{name}.gamma', (*path, 'scale'), 'vector')]
  for part in ('query', 'key', 'value'):
    entries.append(Entry(f'{name}.{part}_conv.weight', (*path, part, 'kernel'), 'conv'))
    entries.append(Entry(f'{name}.{part}_conv.bias', (*path, part, 'bias'), 'vector'))
  return entries


def _linear(name: str, path: Path) -> list[Entry]:
  return [Entry(f'{name}.weight', (*path, 'kernel'), 'linear'), Entry(f'{name}.bias', (*path, 'bias'), 'vector')]


def batch_norm_entries(name: str, path: Path) -> list[Entry]:
  """Returns the arrays of a BatchNorm by its name in the state dict and its path in our variables."""
  return [
    Entry(f'{name}.weight', ('params', *path, 'scale'), 'vector'),
    Entry(f'{name}.bias', ('params', *path, 'bias'), 'vector'),
    Entry(f'{name}.running_mean', ('batch_stats', *path, 'mean'), 'vector'),
    Entry(f'{name}.running_var', ('batch_stats', *path, 'var'), 'vector'),
  ]


def generator_entries(
  generator: GeneratorConfig, structure_encoder: StructureEncoderConfig, decoder: DecoderConfig
) -> list[Entry]:
  """Returns the arrays of the release's `gen`.

  AdaIN's unused running statistics have no counterpart here; `generator.non_local_residual` has none in the release.
  """
  return _encoder_entries(structure_encoder, generator.activation) + _decoder_entries(decoder, generator.activation)


def _encoder_entries(config: StructureEncoderConfig, activation: str) -> list[Entry]:
  encoder: Path = ('params', 'structure_encoder')
  entries = []
  for i in range(4):
    entries += _conv(f'enc_content.model.{i}', (*encoder, f'down_{i}'), activation=activation)
  for i in range(config.num_res_blocks):
    entries += _residual(f'enc_content.model.4.model.{i}', (*encoder, f'block_{i}'), activation=activation)
  pyramid = (*encoder, 'pyramid')
  entries += _conv('enc_content.model.5.conv1', (*pyramid, 'point'))
  for i, branch in enumerate(('conv6', 'conv12', 'conv18')):
    entries += _conv(f'enc_content.model.5.{branch}.0', (*pyramid, f'dilated_{i}_point'), activation=activation)
    entries += _conv(f'enc_content.model.5.{branch}.1', (*pyramid, f'dilated_{i}'))
  return entries + _conv('enc_content.model.5.fuse', (*pyramid, 'fuse'))


def _decoder_entries(config: DecoderConfig, activation: str) -> list[Entry]:
  decoder: Path = ('params', 'decoder')
  entries = []
  for i in range(config.num_res_blocks):
    entries += _residual(f'dec.model.1.model.{i}', (*decoder, f'block_{i}'), activation=activation)
    for ours, theirs in (('scale', 'w'), ('shift', 'b')):
      path = (*decoder, f'adain_{ours}_{i}')
      for j in range(3):
        name = f'mlp_{theirs}{i + 1}.model.{j}'
        entries += _linear(f'{name}.fc', (*path, f'linear_{j}'))
        entries += _activation(name, (*path, f'activation_{j}'), activation if j < 2 else 'none')
  if config.non_local:
    entries += _non_local('dec.model.2', (*decoder, 'non_local'))
  # The release numbers its layers, so a non-local block shifts those after it.
  for layer, name in ((3, 'up_0'), (5, 'up_1')):
    entries += _conv(f'dec.model.{layer + config.non_local}', (*decoder, name), activation=activation, norm='layer')
  for layer, name in ((6, 'refine_0'), (7, 'refine_1')):
    entries += _conv(f'dec.model.{layer + config.non_local}', (*decoder, name), activation=activation)
  return entries + _conv(f'dec.model.{8 + config.non_local}', (*decoder, 'to_rgb'))


def discriminator_entries(config: DiscriminatorConfig) -> list[Entry]:
  """Returns the arrays of the release's `dis`. The running statistics of norm batch have no counterpart here."""
  if config.gan_type == 'wgan':
    return _critic_entries(config.activation)
  kind = {'activation': config.activation, 'norm': config.norm}
  entries = []
  for scale in range(config.num_scales):
    path: Path = ('params', f'scale_{scale}')
    layer = 5
    for i in range(layer):
      entries += _conv(f'cnns.{scale}.{i}', (*path, f'conv_{i}'), **kind)
    if config.non_local > 1:
      entries += _non_local(f'cnns.{scale}.{layer}', (*path, 'non_local_before'))
      layer += 1
    for i in range(config.num_res_blocks):
      entries += _residual(f'cnns.{scale}.{layer}', (*path, f'block_{i}'), **kind)
      layer += 1
    if config.non_local:
      entries += _non_local(f'cnns.{scale}.{layer}', (*path, 'non_local_after'))
      layer += 1
    entries.append(Entry(f'cnns.{scale}.{layer}.weight', (*path, 'score', 'conv', 'kernel'), 'conv'))
    entries.append(Entry(f'cnns.{scale}.{layer}.bias', (*path, 'score', 'conv', 'bias'), 'vector'))
  return entries


def _critic_entries(activation: str) -> list[Entry]:
  path: Path = ('params', 'scale_0')
  entries = []
  for i in range(6):
    entries += _conv(f'cnn.{i}', (*path, f'conv_{i}'), activation=activation)
  entries.append(Entry('cnn.6.weight', (*path, 'score', 'kernel'), 'conv'))
  entries.append(Entry('cnn.6.bias', (*path, 'score', 'bias'), 'vector'))
  return entries


def resnet_entries(stage_sizes: Iterable[int]) -> list[Entry]:
  """Returns the arrays of the release's backbone."""
  entries = [Entry('model.conv1.weight', ('params', 'backbone', 'stem', 'kernel'), 'conv')]
  entries += batch_norm_entries('model.bn1', ('backbone', 'stem_norm'))
  for stage, num_blocks in enumerate(stage_sizes):
    for block in range(num_blocks):
      theirs = f'model.layer{stage + 1}.{block}'
      ours: Path = ('backbone', f'stage_{stage}_block_{block}')
      for i in range(3):
        entries.append(Entry(f'{theirs}.conv{i + 1}.weight', ('params', *ours, f'conv_{i}', 'kernel'), 'conv'))
        entries += batch_norm_entries(f'{theirs}.bn{i + 1}', (*ours, f'norm_{i}'))
      if block == 0:
        entries.append(Entry(f'{theirs}.downsample.0.weight', ('params', *ours, 'project', 'kernel'), 'conv'))
        entries += batch_norm_entries(f'{theirs}.downsample.1', (*ours, 'project_norm'))
  return entries


def _head_entries(theirs: str, ours: str) -> list[Entry]:
  entries = _linear(f'{theirs}.add_block.0', ('params', ours, 'bottleneck'))
  entries += batch_norm_entries(f'{theirs}.add_block.1', (ours, 'norm'))
  return entries + _linear(f'{theirs}.classifier.0', ('params', ours, 'classifier'))


def reid_entries(config: ReidConfig) -> list[Entry]:
  """Returns the arrays of the release's `id`. The unused `model.fc` and the step counters have no counterpart here."""
  heads = {
    'AB': {'classifier1': 'primary_head', 'classifier2': 'fine_head'},
    'normal': {'classifier': 'primary_head'},
    'PCB': {f'classifier{i}': f'part_head_{i}' for i in range(config.num_parts)},
  }[config.style]
  entries = resnet_entries(config.stage_sizes)
  return entries + [entry for theirs, ours in heads.items() for entry in _head_entries(theirs, ours)]


def teacher_entries(config: TeacherConfig) -> list[Entry]:
  """Returns the arrays of the release's teacher, a plain `ft_net`."""
  return resnet_entries(config.stage_sizes) + _head_entries('classifier', 'head')


def from_torch(state_dict: Mapping[str, np.ndarray], entries: Iterable[Entry]) -> dict[str, Any]:
  """Converts a state dict to our variables {'params', 'batch_stats'}.

  Raises:
    KeyError: the state dict lacks arrays of `entries`. The message lists them.
  """
  entries = list(entries)
  missing = [entry.name for entry in entries if entry.name not in state_dict]
  if missing:
    raise KeyError(f'the state dict lacks {len(missing)} arrays: {", ".join(missing)}')
  variables: dict[str, Any] = {'params': {}, 'batch_stats': {}}
  for entry in entries:
    node = variables
    for key in entry.path[:-1]:
      node = node.setdefault(key, {})
    node[entry.path[-1]] = np.ascontiguousarray(np.transpose(state_dict[entry.name], _TO_OURS[entry.kind]))
  return variables


def torch_shapes(variables: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of `entries` in a state dict.

  Args:
    variables: ours; arrays or anything else with a shape.
    entries: arrays to look up.
  """
  shapes = {}
  for entry in entries:
    shape = _leaf(variables, entry.path).shape
    shapes[entry.name] = tuple(shape[axis] for axis in _TO_TORCH[entry.kind])
  return shapes


def to_torch(variables: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, np.ndarray]:
  """Converts our variables to a state dict that has the arrays of `entries`."""
  state_dict = {}
  for entry in entries:
    array = np.asarray(_leaf(variables, entry.path))
    state_dict[entry.name] = np.ascontiguousarray(np.transpose(array, _TO_TORCH[entry.kind]))
  return state_dict


def _leaf(variables: Mapping[str, Any], path: Path) -> Any:
  node: Any = variables
  for key in path:
    node = node[key]
  return node
