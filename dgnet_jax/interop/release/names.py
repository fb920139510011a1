"""Names and order of the arrays in the release's state dicts, and the arrays that only the release has.

The order matters because an optimizer's state numbers the parameters instead of naming them.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
import re
from typing import Any

import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.interop.torch_names import (
  Entry,
  discriminator_entries,
  generator_entries,
  reid_entries,
  teacher_entries,
  to_torch,
)

OURS = {'gen': 'generator', 'dis': 'discriminator', 'id': 'reid'}  # the release's networks in our TrainState
NETWORKS = (*OURS, 'teacher')
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')  # in the state dict, but not parameters
IMAGENET_CLASSES = 1000

# Words in names, in the order in which the release's modules create them. Each line is a group. Groups come one after
# the other; within a group, names are ordered by their number if they have one, then by the word.
_WORDS = (
  'weight bias gamma beta running_mean running_var num_batches_tracked',
  'enc_content fc norm activation',
  'dec conv bn query_conv add_block model',
  'mlp_w layer key_conv classifier',
  'mlp_b downsample fuse value_conv imagenet',
)
_RANK = {word: (group, place) for group, words in enumerate(_WORDS) for place, word in enumerate(words.split())}
_PART = re.compile(r'(.*?)(\d*)', re.DOTALL)


def network_entries(network: str, config: Config) -> list[Entry]:
  """Returns the arrays that a network of the release shares with ours.

  Args:
    network: gen, dis, id or teacher.
    config: its sizes and kinds.
  """
  match network:
    case 'gen':
      return generator_entries(config.generator, config.structure_encoder, config.decoder)
    case 'dis':
      return discriminator_entries(config.discriminator)
    case 'id':
      return reid_entries(config.reid)
    case 'teacher':
      return teacher_entries(config.teacher)
  raise ValueError(f'{network=} must be one of {NETWORKS}')


def in_release_order(names: Iterable[str]) -> list[str]:
  """Sorts the names of one network as its state dict does."""

  def rank(part: str) -> tuple[int, int, int]:
    match = _PART.fullmatch(part)
    assert match is not None
    word, number = match.groups()
    group, place = _RANK.get(word, (2, 0))  # a bare number is the index of a module in a sequence
    return group, int(number or 0), place

  # A block's own `fc` precedes its norm, but the ImageNet head `model.fc` follows the whole backbone.
  return sorted(names, key=lambda name: [rank(part) for part in name.replace('model.fc', 'model.imagenet').split('.')])


def parameters_in_order(names: Iterable[str]) -> list[str]:
  """Returns the names of a state dict that its optimizer knows, in the order of the optimizer."""
  return [name for name in names if name.rpartition('.')[2] not in BUFFERS]


def default_extras(network: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
  """Returns the arrays that only the release has, as it initializes them; the ImageNet head and counters are zero.

  Args:
    network: gen, dis, id or teacher.
    shapes: shapes of our arrays, by the release's names.
  """
  counters = [name.replace('running_var', 'num_batches_tracked') for name in shapes if name.endswith('running_var')]
  extras: dict[str, np.ndarray] = {name: np.zeros((), np.int64) for name in counters}
  if network in ('id', 'teacher'):
    widths = [shape[0] for name, shape in shapes.items() if re.fullmatch(r'model\.layer\d+\.\d+\.bn3\.bias', name)]
    extras['model.fc.weight'] = np.zeros((IMAGENET_CLASSES, widths[-1]), np.float32)
    extras['model.fc.bias'] = np.zeros(IMAGENET_CLASSES, np.float32)
  if network == 'gen':
    for name, channels in _adain_layers(shapes):
      extras[f'{name}.running_mean'] = np.zeros(channels, np.float32)
      extras[f'{name}.running_var'] = np.ones(channels, np.float32)
  if network == 'dis':  # `weight` and `bias` belong to a BatchNorm; a LayerNorm has `gamma` and `beta`
    for name in (name.removesuffix('.weight') for name in shapes if name.endswith('.norm.weight')):
      extras[f'{name}.running_mean'] = np.zeros(shapes[f'{name}.weight'], np.float32)
      extras[f'{name}.running_var'] = np.ones(shapes[f'{name}.weight'], np.float32)
      extras[f'{name}.num_batches_tracked'] = np.zeros((), np.int64)
  return extras


def _adain_layers(shapes: Mapping[str, Sequence[int]]) -> list[tuple[str, int]]:
  """Names and channels of the decoder's AdaIN layers; a slim block has them at the middle two convolutions."""
  blocks: dict[str, list[str]] = {}
  for name in shapes:
    match = re.fullmatch(r'(dec\.model\.1\.model\.\d+)\.model\.\d+\.conv\.weight', name)
    if match:
      blocks.setdefault(match[1], []).append(name)
  layers = [name for convs in blocks.values() for name in (sorted(convs)[1:3] if len(convs) == 4 else convs)]
  return [(name.replace('.conv.weight', '.norm'), shapes[name][0]) for name in layers]


def release_state_dict(
  network: str, variables: Mapping[str, Any], entries: Sequence[Entry], kept: Mapping[str, np.ndarray]
) -> OrderedDict[str, np.ndarray]:
  """Makes a state dict that the release loads with strict=True.

  Args:
    network: gen, dis, id or teacher.
    variables: our {'params', 'batch_stats'}.
    entries: the network's arrays.
    kept: arrays that only the release has, from an import; the others get their initial values.
  """
  ours = to_torch(variables, entries)
  extras = default_extras(network, {name: array.shape for name, array in ours.items()}) | dict(kept)
  arrays = extras | ours
  return OrderedDict((name, arrays[name]) for name in in_release_order(arrays))
