"""What the release's state dicts have beyond our arrays, and the order of their names.

The order matters: an optimiser's state counts parameters and does not name them.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
import re
from typing import Any

import numpy as np

from dgnet_jax.interop.torch_names import (
  Entry,
  discriminator_entries,
  generator_entries,
  reid_entries,
  teacher_entries,
  to_torch,
)

ENTRIES = {'gen': generator_entries, 'dis': discriminator_entries, 'id': reid_entries, 'teacher': teacher_entries}
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')  # in the state dict, but no parameters
IMAGENET_CLASSES = 1000

# Words of names in the order in which the release's modules make them: all of one group before the next, within a group
# by their number if they have one, and of the same number in this order.
_WORDS = (
  'weight bias gamma beta running_mean running_var num_batches_tracked',
  'enc_content fc norm activation',
  'dec conv bn query_conv add_block model',
  'mlp_w layer key_conv classifier',
  'mlp_b downsample fuse value_conv imagenet',
)
_RANK = {word: (group, place) for group, words in enumerate(_WORDS) for place, word in enumerate(words.split())}
_PART = re.compile(r'(.*?)(\d*)')


def in_release_order(names: Iterable[str]) -> list[str]:
  """Names of one network as its state dict lists them."""

  def rank(part: str) -> tuple[int, int, int]:
    match = _PART.fullmatch(part)
    assert match is not None
    word, number = match.groups()
    group, place = _RANK.get(word, (2, 0))  # bare numbers are members of a row of modules
    return group, int(number or 0), place

  # A block's own `fc` comes before its norm, the ImageNet head `model.fc` after all of the backbone.
  return sorted(names, key=lambda name: [rank(part) for part in name.replace('model.fc', 'model.imagenet').split('.')])


def parameters_in_order(names: Iterable[str]) -> list[str]:
  """The names among those of a state dict that its optimiser knows, in its order."""
  return [name for name in names if name.rpartition('.')[2] not in BUFFERS]


def default_extras(network: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
  """What the release's state dict has beyond ours, as the release makes it; the ImageNet head and counters are zero.

  Args:
    network: gen, dis, id or teacher.
    shapes: of our arrays, by the release's names.
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
  if network == 'dis':  # weight and bias are those of a BatchNorm; LayerNorm has gamma and beta
    for name in (name.removesuffix('.weight') for name in shapes if name.endswith('.norm.weight')):
      extras[f'{name}.running_mean'] = np.zeros(shapes[f'{name}.weight'], np.float32)
      extras[f'{name}.running_var'] = np.ones(shapes[f'{name}.weight'], np.float32)
      extras[f'{name}.num_batches_tracked'] = np.zeros((), np.int64)
  return extras


def _adain_layers(shapes: Mapping[str, Sequence[int]]) -> list[tuple[str, int]]:
  """The decoder's AdaIN layers with their channels; of a slim block's four convolutions the middle two have one."""
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
  """A state dict that the release loads with strict=True.

  Args:
    network: gen, dis, id or teacher.
    variables: ours.
    entries: of the network.
    kept: arrays without a place in ours, from an import; what is not among them is made anew.
  """
  ours = to_torch(variables, entries)
  extras = default_extras(network, {name: array.shape for name, array in ours.items()}) | dict(kept)
  everything = extras | ours
  return OrderedDict((name, everything[name]) for name in in_release_order(everything))
