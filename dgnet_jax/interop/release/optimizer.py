"""Converts the release's optimizer.pt (moments, learning rates, betas) to our optimizer states and back."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import optax

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.interop.release.names import OURS, parameters_in_order
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_names import Entry, from_torch, to_torch, torch_shapes
from dgnet_jax.training.optimizers import ADAM_EPSILON, Moments, adam_state, momentum_buffers
from dgnet_jax.training.schedules import learning_rates
from dgnet_jax.types import Params

ADAM_SLOTS = ('exp_avg', 'exp_avg_sq')
SGD_SLOTS = ('momentum_buffer',)
MAX_PARAMETERS = 100_000  # of an optimizer; the release's have up to 330
MAX_STATE = 16  # entries of a parameter's state; Adam's has three
SLOTS = {'gen': ADAM_SLOTS, 'dis': ADAM_SLOTS, 'id': SGD_SLOTS}


@dataclasses.dataclass(frozen=True)
class SavedOptimizer:
  """One optimizer in an optimizer.pt.

  Attributes:
    states: the state of each parameter, in the optimizer's order; empty if the parameter was never updated.
    learning_rate: rate of the first group in the last iteration; None if the file does not have it.
    betas: Adam's betas; None for SGD, or if the file does not have them.
    source: the file and the network, for messages.
  """

  states: Sequence[Mapping[str, Any]]
  learning_rate: float | None
  betas: tuple[float, float] | None
  source: str


def read_optimizers(path: pathlib.Path) -> dict[str, SavedOptimizer]:
  """Reads an optimizer.pt.

  Returns:
    The optimizers by the release's name of their network: gen, dis and id.

  Raises:
    UserError: the file is missing or damaged, or holds something else.
  """
  content = read_torch(path)
  if not isinstance(content, dict) or not content.keys() >= OURS.keys():
    raise UserError(f"{path}: not an optimizer.pt of the release, which has the keys 'gen', 'dis' and 'id'")
  return {network: _parse(content[network], f'{path}, {network}') for network in OURS}


def _parse(state_dict: Any, source: str) -> SavedOptimizer:
  try:
    groups, states = state_dict['param_groups'], state_dict['state']
    rate, betas = groups[0].get('lr'), groups[0].get('betas')
    return SavedOptimizer(
      states=[_state(states.get(number, {})) for number in _parameters(groups)],
      learning_rate=None if rate is None else _as_float(rate),
      betas=None if betas is None else (_as_float(betas[0]), _as_float(betas[1])),
      source=source,
    )
  except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
    raise UserError(f'{source}: not the state dict of an optimizer ({type(error).__name__}: {error})') from error


def _parameters(groups: Any) -> list[int]:
  """Returns the numbers of an optimizer's parameters, which are numbered through all groups."""
  numbers: list[int] = []
  for group in groups:
    if len(numbers) + max(1, len(group['params'])) > MAX_PARAMETERS:
      raise ValueError(f'more than {MAX_PARAMETERS} parameters')
    numbers += group['params']
  if not all(type(number) is int for number in numbers):
    raise ValueError('a parameter that is not a number')
  return numbers


def _state(state: Any) -> dict[str, Any]:
  if not isinstance(state, dict) or len(state) > MAX_STATE:
    raise ValueError('the state of a parameter is not like that of Adam or SGD')
  return dict(state)


def _as_float(value: Any) -> float:
  if not isinstance(value, int | float):
    raise TypeError(f'a {type(value).__name__} that should be a number')
  return float(value)


def adam_betas(saved: Mapping[str, SavedOptimizer]) -> tuple[float, float] | None:
  """Returns the betas of both Adam optimizers, or None if the file does not have them.

  Raises:
    UserError: the generator and the discriminator have different betas.
  """
  generator, discriminator = saved['gen'], saved['dis']
  if generator.betas != discriminator.betas:
    raise UserError(
      f'{generator.source}: betas {generator.betas}, but the discriminator has {discriminator.betas}; '
      'different betas are not supported'
    )
  return generator.betas


def rate_notes(saved: Mapping[str, SavedOptimizer], config: Config, step: int) -> list[str]:
  """Returns a note for each optimizer whose last learning rate is not the one that the config gives.

  Args:
    saved: from `read_optimizers`.
    config: of the run; optimizer and num_steps are read.
    step: iterations done.
  """
  rates = learning_rates(config, step - 1)
  notes = []
  for network, optimizer in saved.items():
    rate, expected = optimizer.learning_rate, float(rates[OURS[network]])
    if rate is not None and not np.isclose(rate, expected, rtol=1e-6, atol=0):
      notes.append(
        f'{optimizer.source}: the last learning rate was {rate:g}, but the settings give {expected:g}; training '
        'continues with the settings'
      )
  return notes


def read_moments(
  network: str,
  saved: SavedOptimizer,
  order: Sequence[str],
  entries: Sequence[Entry],
  template: Mapping[str, Any],
) -> Moments:
  """Converts the moments of one optimizer.

  Args:
    network: gen, dis or id.
    saved: its optimizer.
    order: names in the network's state dict, in the order of its file.
    entries: the network's arrays.
    template: our variables or their shapes.

  Returns:
    The moments for `optimizers.with_progress`; Adam's `count` is the number of updates done.

  Raises:
    UserError: the number of parameters differs, parameters lack moments or have them in another shape, or they were
      updated different numbers of times.
  """
  names = parameters_in_order(order)
  if len(saved.states) != len(names):
    raise UserError(f'{saved.source}: {len(saved.states)} parameters, but the network has {len(names)}')
  states = dict(zip(names, saved.states, strict=True))
  entries = [entry for entry in entries if entry.path[0] == 'params']
  shapes = torch_shapes(template, entries)
  if not any(states[name] for name in shapes):  # never updated
    states = {
      name: {slot: np.zeros(shape, np.float32) for slot in SLOTS[network]} | {'step': 0}
      for name, shape in shapes.items()
    }
  problems = [
    f'{slot} of {name}, expected {list(shape)}'
    for slot in SLOTS[network]
    for name, shape in shapes.items()
    if not _is_float_array(states[name].get(slot), shape)
  ]
  counts = {update_count(states[name].get('step')) for name in shapes}
  if network != 'id' and (len(counts) != 1 or None in counts):
    problems.append(f'one step for all parameters, but found {", ".join(sorted(map(str, counts)))}')
  if problems:
    raise UserError('\n  '.join([f'{saved.source}: missing, or of another shape:', *problems]))

  def as_ours(slot: str) -> Params:
    arrays = {name: states[name][slot].astype(np.float32, copy=False) for name in shapes}
    params: Params = from_torch(arrays, entries)['params']
    return params

  if network == 'id':
    return optax.TraceState(trace=as_ours('momentum_buffer'))
  return optax.ScaleByAdamState(count=np.int32(counts.pop() or 0), mu=as_ours('exp_avg'), nu=as_ours('exp_avg_sq'))


def _is_float_array(value: Any, shape: tuple[int, ...]) -> bool:
  return isinstance(value, np.ndarray) and value.dtype.kind == 'f' and value.shape == shape


def update_count(value: Any) -> int | None:
  """Returns a number of updates, which newer versions of torch save as an array; None if it is not a count."""
  number = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
  return int(number) if isinstance(number, int | float) and 0 <= number < 2**31 else None


def release_optimizer(
  network: str,
  opt_state: optax.OptState,
  order: Sequence[str],
  entries: Sequence[Entry],
  config: Config,
  step: int,
) -> dict[str, Any]:
  """Makes the state dict of one optimizer.

  Args:
    network: gen, dis or id.
    opt_state: ours.
    order: names in the network's state dict.
    entries: the network's arrays.
    config: of the run; optimizer and num_steps are read.
    step: iterations done.
  """
  entries = [entry for entry in entries if entry.path[0] == 'params']
  if network == 'id':
    updates, moments = step, {'momentum_buffer': momentum_buffers(opt_state)}
  else:
    adam = adam_state(opt_state)
    updates, moments = int(adam.count), {'exp_avg': adam.mu, 'exp_avg_sq': adam.nu}
  arrays = {slot: to_torch({'params': jax.device_get(tree)}, entries) for slot, tree in moments.items()}
  names = parameters_in_order(order)
  with_moments = {entry.name for entry in entries}
  # The ImageNet head, which we do not have, never gets a gradient, so the release has no state for it either.
  state = {
    number: ({} if network == 'id' else {'step': updates}) | {slot: arrays[slot][name] for slot in arrays}
    for number, name in enumerate(names)
    if name in with_moments
  }
  return {'state': state if updates else {}, 'param_groups': release_groups(network, names, config, step)}


def release_groups(network: str, names: Sequence[str], config: Config, step: int) -> list[dict[str, Any]]:
  """Makes the parameter groups of one optimizer as they are after `step` iterations.

  Args:
    network: gen, dis or id.
    names: names of its parameters, in order.
    config: of the run; optimizer and num_steps are read.
    step: iterations done.
  """
  last, initial = (float(learning_rates(config, done)[OURS[network]]) for done in (step - 1, -1))
  if network != 'id':
    settings: dict[str, Any] = {'betas': config.optimizer.adam_betas, 'eps': ADAM_EPSILON, 'amsgrad': False}
    groups = [(1.0, '')]
  else:
    settings = {'momentum': config.optimizer.reid_momentum, 'dampening': 0, 'nesterov': True}
    # The backbone, then a group for each head. The goldens have those of style AB only.
    modules = dict.fromkeys(name.partition('.')[0] for name in names)
    groups = [(1.0 if module == 'model' else config.optimizer.head_multiplier, f'{module}.') for module in modules]
  return [
    settings
    | {'weight_decay': config.optimizer.weight_decay, 'lr': last * factor, 'initial_lr': initial * factor}
    | {'params': [number for number, name in enumerate(names) if name.startswith(prefix)]}
    for factor, prefix in groups
  ]
