"""Derives the sizes of the release's networks from the shapes in their state dicts."""

from collections.abc import Callable, Mapping
import re
from typing import Any

import numpy as np

from dgnet_jax.errors import UserError

StateDict = Mapping[str, np.ndarray]
Fields = dict[str, Any]

MAX_STAGES = 8  # of a backbone; ResNet has four
MAX_COUNT = 100  # of blocks of a stage, scales and other parts


def _count(state_dict: StateDict, pattern: str) -> int:
  """Returns the number of different values of the pattern's group among all names.

  Raises:
    IndexError: there are more than `MAX_COUNT`.
  """
  count = len({match[1] for name in state_dict if (match := re.match(pattern, name))})
  if count > MAX_COUNT:
    raise IndexError(f'{count} times {pattern}')
  return count


def _has(state_dict: StateDict, pattern: str) -> bool:
  return any(re.match(pattern, name) for name in state_dict)


def _backbone(state_dict: StateDict, head: str) -> Fields:
  stages = _count(state_dict, r'model\.layer(\d+)\.')
  if stages > MAX_STAGES:
    raise IndexError(f'{stages} stages')
  return {
    'stage_sizes': tuple(_count(state_dict, rf'model\.layer{stage + 1}\.(\d+)\.') for stage in range(stages)),
    'width': state_dict['model.conv1.weight'].shape[0],
    'head_width': state_dict[f'{head}.add_block.0.weight'].shape[0],
  }


def _generator(gen: StateDict) -> Fields:
  fields: Fields = {'generator.activation': 'prelu'} if _has(gen, r'enc_content\..*\.activation\.weight$') else {}
  return fields | {
    'structure_encoder.width': gen['enc_content.model.0.conv.weight'].shape[0],
    'structure_encoder.num_res_blocks': _count(gen, r'enc_content\.model\.4\.model\.(\d+)\.'),
    'decoder.num_res_blocks': _count(gen, r'dec\.model\.1\.model\.(\d+)\.'),
    'decoder.mlp_width': gen['mlp_w1.model.0.fc.weight'].shape[0],
    'decoder.non_local': int(_has(gen, r'dec\.model\.2\.gamma$')),
  }


def reid_style(id_net: StateDict) -> tuple[str, str]:
  """Returns the style of a re-id network and the release's name of its first head."""
  for head, style in {'classifier0': 'PCB', 'classifier1': 'AB', 'classifier': 'normal'}.items():
    if f'{head}.add_block.0.weight' in id_net:
      return style, head
  raise KeyError('classifier')


def _reid(gen: StateDict, id_net: StateDict) -> Fields:
  style, head = reid_style(id_net)
  # Each MLP takes a slice of the appearance code that is parts * channels / blocks long (release fact 25).
  code_size = gen['mlp_w1.model.0.fc.weight'].shape[1] * _count(gen, r'dec\.model\.1\.model\.(\d+)\.')
  fields = {f'reid.{name}': value for name, value in _backbone(id_net, head).items()}
  num_parts = code_size // id_net[f'{head}.add_block.0.weight'].shape[1]
  return fields | {'reid.style': style, 'reid.num_parts': num_parts}


def _discriminator(dis: StateDict) -> Fields:
  fields: Fields = {'discriminator.activation': 'prelu'} if _has(dis, r'cnns?\..*\.activation\.weight$') else {}
  if _has(dis, r'cnn\.'):
    return fields | {'discriminator.gan_type': 'wgan', 'discriminator.width': dis['cnn.0.conv.weight'].shape[0]}
  for array, norm in {'running_var': 'batch', 'gamma': 'layer'}.items():
    if f'cnns.0.0.norm.{array}' in dis:
      fields['discriminator.norm'] = norm
  return fields | {
    'discriminator.width': dis['cnns.0.0.conv.weight'].shape[0],
    'discriminator.num_scales': _count(dis, r'cnns\.(\d+)\.'),
    'discriminator.num_res_blocks': _count(dis, r'cnns\.0\.(\d+)\.model\.0\.conv\.weight'),
    'discriminator.non_local': _count(dis, r'cnns\.0\.(\d+)\.gamma$'),
  }


def _teacher(teacher: StateDict) -> Fields:
  return {f'teacher.{name}': value for name, value in _backbone(teacher, 'classifier').items()}


def release_sizes(state_dicts: Mapping[str, StateDict], sources: Mapping[str, str]) -> Fields:
  """Returns the fields of our config that the shapes determine.

  Args:
    state_dicts: gen and id, and if present dis and teacher.
    sources: their files, for messages.

  Returns:
    Values by dotted field name.

  Raises:
    UserError: a file belongs to another network. The message names the array that is missing.
  """
  readers: dict[str, Callable[[], Fields]] = {
    'gen': lambda: _generator(state_dicts['gen']),
    'id': lambda: _reid(state_dicts['gen'], state_dicts['id']),
    'dis': lambda: _discriminator(state_dicts['dis']),
    'teacher': lambda: _teacher(state_dicts['teacher']),
  }
  fields: Fields = {}
  for network, read in readers.items():
    if network not in state_dicts:
      continue
    try:
      fields |= read()
    except (KeyError, IndexError, ZeroDivisionError) as error:
      raise UserError(f'{sources[network]}: not a supported `{network}` of the release ({error!r})') from error
  return fields


def num_identities(state_dicts: Mapping[str, StateDict], sources: Mapping[str, str]) -> int:
  """Returns the number of classes of the re-id network and the teacher.

  Args:
    state_dicts: id, and if present teacher.
    sources: their files, for messages.

  Raises:
    UserError: the two differ, or a classifier is missing.
  """
  classifiers = {'id': f'{reid_style(state_dicts["id"])[1]}.classifier.0.weight'}
  if 'teacher' in state_dicts:
    classifiers['teacher'] = 'classifier.classifier.0.weight'
  counts: dict[str, int] = {}
  for network, name in classifiers.items():
    if not np.ndim(state_dicts[network].get(name, 0)):
      raise UserError(f'{sources[network]}: the classifier {name} is missing')
    counts[network] = state_dicts[network][name].shape[0]
  if len(set(counts.values())) > 1:
    shown = ', '.join(f'{sources[network]} has {count}' for network, count in counts.items())
    raise UserError(f'the files must have the same number of identities: {shown}')
  return counts['id']
