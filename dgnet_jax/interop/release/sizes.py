"""The sizes of the release's networks, read off the shapes of their state dicts."""

from collections.abc import Mapping
import re
from typing import Any

import numpy as np

from dgnet_jax.errors import UserError

StateDict = Mapping[str, np.ndarray]


def _rows(state_dict: StateDict, pattern: str) -> int:
  """How many different numbers stand in the place of `(\\d+)` in names."""
  return len({match[1] for name in state_dict if (match := re.match(pattern, name))})


def _has(state_dict: StateDict, pattern: str) -> bool:
  return any(re.match(pattern, name) for name in state_dict)


def _backbone(state_dict: StateDict, head: str) -> dict[str, Any]:
  stages = _rows(state_dict, r'model\.layer(\d+)\.')
  return {
    'stage_sizes': tuple(_rows(state_dict, rf'model\.layer{stage + 1}\.(\d+)\.') for stage in range(stages)),
    'width': state_dict['model.conv1.weight'].shape[0],
    'head_width': state_dict[f'{head}.add_block.0.weight'].shape[0],
  }


def _generator(gen: StateDict) -> dict[str, Any]:
  told = {'generator.activation': 'prelu'} if _has(gen, r'enc_content\..*\.activation\.weight$') else {}
  return told | {
    'structure_encoder.width': gen['enc_content.model.0.conv.weight'].shape[0],
    'structure_encoder.num_res_blocks': _rows(gen, r'enc_content\.model\.4\.model\.(\d+)\.'),
    'decoder.num_res_blocks': _rows(gen, r'dec\.model\.1\.model\.(\d+)\.'),
    'decoder.mlp_width': gen['mlp_w1.model.0.fc.weight'].shape[0],
    'decoder.non_local': int(_has(gen, r'dec\.model\.2\.gamma$')),
  }


def reid_style(id_net: StateDict) -> tuple[str, str]:
  """The style of a re-id network, and the release's name of its first head."""
  for head, style in {'classifier0': 'PCB', 'classifier1': 'AB', 'classifier': 'normal'}.items():
    if f'{head}.add_block.0.weight' in id_net:
      return style, head
  raise KeyError('classifier')


def _reid(gen: StateDict, id_net: StateDict) -> dict[str, Any]:
  style, head = reid_style(id_net)
  # Every run of the code that an MLP takes is parts * channels / blocks long (release fact 25).
  code_size = gen['mlp_w1.model.0.fc.weight'].shape[1] * _rows(gen, r'dec\.model\.1\.model\.(\d+)\.')
  sizes = {f'reid.{name}': value for name, value in _backbone(id_net, head).items()}
  num_parts = code_size // id_net[f'{head}.add_block.0.weight'].shape[1]
  return sizes | {'reid.style': style, 'reid.num_parts': num_parts}


def _discriminator(dis: StateDict) -> dict[str, Any]:
  told = {'discriminator.activation': 'prelu'} if _has(dis, r'cnns?\..*\.activation\.weight$') else {}
  if _has(dis, r'cnn\.'):
    told['discriminator.gan_type'] = 'wgan'
    return told | {'discriminator.width': dis['cnn.0.conv.weight'].shape[0]}
  for array, norm in {'running_var': 'batch', 'gamma': 'layer'}.items():
    if f'cnns.0.0.norm.{array}' in dis:
      told['discriminator.norm'] = norm
  return told | {
    'discriminator.width': dis['cnns.0.0.conv.weight'].shape[0],
    'discriminator.num_scales': _rows(dis, r'cnns\.(\d+)\.'),
    'discriminator.num_res_blocks': _rows(dis, r'cnns\.0\.(\d+)\.model\.0\.conv\.weight'),
    'discriminator.non_local': _rows(dis, r'cnns\.0\.(\d+)\.gamma$'),
  }


def _teacher(teacher: StateDict) -> dict[str, Any]:
  return {f'teacher.{name}': value for name, value in _backbone(teacher, 'classifier').items()}


def release_sizes(state_dicts: Mapping[str, StateDict], where: Mapping[str, str]) -> dict[str, Any]:
  """Fields of our config that the shapes decide.

  Args:
    state_dicts: gen and id, and where there are such, dis and teacher.
    where: their files, for messages.

  Returns:
    Dotted field names with values.

  Raises:
    UserError: a file is of another network; names it and the array that it lacks.
  """
  readers: dict[str, Any] = {
    'gen': lambda: _generator(state_dicts['gen']),
    'id': lambda: _reid(state_dicts['gen'], state_dicts['id']),
    'dis': lambda: _discriminator(state_dicts['dis']),
    'teacher': lambda: _teacher(state_dicts['teacher']),
  }
  sizes: dict[str, Any] = {}
  for network, read in readers.items():
    if network not in state_dicts:
      continue
    try:
      sizes |= read()
    except (KeyError, IndexError) as error:
      raise UserError(f'{where[network]}: no `{network}` of the release that is known here: {error}') from error
  return sizes


def num_identities(state_dicts: Mapping[str, StateDict], where: Mapping[str, str]) -> int:
  """The class count, on which the re-id network and the teacher must agree.

  Raises:
    UserError: they do not.
  """
  heads = {'id': f'{reid_style(state_dicts["id"])[1]}.classifier.0.weight', 'teacher': 'classifier.classifier.0.weight'}
  counts = {net: state_dicts[net][name].shape[0] for net, name in heads.items() if name in state_dicts.get(net, ())}
  if len(set(counts.values())) != 1:
    found = ', '.join(f'{where[network]} has {count}' for network, count in counts.items()) or 'none found'
    raise UserError(f'the files must name one number of people: {found}')
  return next(iter(counts.values()))
