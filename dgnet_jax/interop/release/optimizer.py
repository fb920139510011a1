"""The release's optimizer.pt: what its three optimisers have gathered, as ours have it, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.interop.release.names import parameters_in_order
from dgnet_jax.interop.torch_names import Entry, from_torch, to_torch, torch_shapes
from dgnet_jax.training.optimizers import ADAM_BETAS, ADAM_EPSILON, adam_count, adam_slots, momentum_slots
from dgnet_jax.training.schedules import learning_rates

ADAM_SLOTS = {'exp_avg': 'mu', 'exp_avg_sq': 'nu'}
SGD_SLOTS = {'momentum_buffer': 'trace'}
SLOTS = {'gen': ADAM_SLOTS, 'dis': ADAM_SLOTS, 'id': SGD_SLOTS}
OURS = {'gen': 'generator', 'dis': 'discriminator', 'id': 'reid'}


def _states_by_name(saved: Any, order: Sequence[str], where: str) -> dict[str, dict[str, Any]]:
  """The state of every parameter that has one; the optimiser numbers them through its groups."""
  try:
    numbers = [number for group in saved['param_groups'] for number in group['params']]
    states = [saved['state'].get(number, {}) for number in numbers]
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{where}: no optimiser state: {type(error).__name__} {error}') from error
  names = parameters_in_order(order)
  if len(numbers) != len(names) or not all(isinstance(state, dict) for state in states):
    raise UserError(f'{where}: it is of {len(numbers)} parameters, the network beside it has {len(names)}')
  return dict(zip(names, states, strict=True))


def load_slots(
  network: str,
  saved: Any,
  order: Sequence[str],
  entries: Sequence[Entry],
  template: Mapping[str, Any],
  where: str,
) -> tuple[dict[str, Any], int | None]:
  """What one optimiser has gathered, for `optimizers.with_slots`.

  Args:
    network: gen, dis or id.
    saved: the optimiser's state dict.
    order: the names of the network's state dict as its file lists them.
    entries: of the network.
    template: our variables, or their shapes.
    where: the file, for messages.

  Returns:
    The slots, and the updates that Adam has done (None for SGD, which does not count).

  Raises:
    UserError: it is of another network, parameters lack a slot or have one of another shape, or they differ in step.
  """
  states = _states_by_name(saved, order, where)
  entries = [entry for entry in entries if entry.path[0] == 'params']
  shapes = torch_shapes(template, entries)
  if not any(states[name] for name in shapes):
    # Never stepped.
    zeros = {slot: {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} for slot in SLOTS[network]}
    return _as_ours(network, zeros, entries, 0)
  wrong, slots = [], {}
  for slot in SLOTS[network]:
    slots[slot] = {name: states[name].get(slot) for name in shapes}
    for name, array in slots[slot].items():
      if not isinstance(array, np.ndarray) or array.dtype.kind != 'f' or array.shape != shapes[name]:
        wrong.append(f'{slot} of {name}, expected {list(shapes[name])}')
  steps = {whole_number(states[name].get('step')) for name in shapes} if network != 'id' else {0}
  if len(steps) != 1 or None in steps:
    wrong.append(f'one step for all parameters, found {steps}')
  if wrong:
    raise UserError('\n  '.join([f'{where}: missing or of another shape:', *wrong]))
  return _as_ours(network, slots, entries, steps.pop() or 0)


def whole_number(step: Any) -> int | None:
  """A number of updates, which newer versions of torch keep as an array; None if it is none."""
  number = step.item() if isinstance(step, np.ndarray) and step.size == 1 else step
  return int(number) if isinstance(number, int | float) and 0 <= number < 2**31 else None


def _as_ours(
  network: str, slots: Mapping[str, Any], entries: Sequence[Entry], step: int
) -> tuple[dict[str, Any], int | None]:
  made: dict[str, Any] = {}
  for slot, arrays in slots.items():
    single = {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}
    made[SLOTS[network][slot]] = from_torch(single, entries)['params']
  if network == 'id':
    return made, None
  return made | {'count': np.int32(step)}, step


def release_optimizer(
  network: str, opt_state: Any, order: Sequence[str], entries: Sequence[Entry], config: Config, step: int
) -> dict[str, Any]:
  """One optimiser's state dict for the release.

  Args:
    network: gen, dis or id.
    opt_state: ours.
    order: the names of the network's state dict.
    entries: of the network.
    config: `optimizer` is read.
    step: iterations done.
  """
  entries = [entry for entry in entries if entry.path[0] == 'params']
  if network == 'id':
    slots = {'momentum_buffer': momentum_slots(opt_state)}
  else:
    slots = dict(zip(('exp_avg', 'exp_avg_sq'), adam_slots(opt_state), strict=True))
  updates = step if network == 'id' else int(adam_count(opt_state))
  arrays = {slot: to_torch({'params': jax.device_get(tree)}, entries) for slot, tree in slots.items()}
  names = parameters_in_order(order)
  # What is not among our arrays (the ImageNet head) never gets a gradient, so the release has no state for it either.
  state = {
    number: ({} if network == 'id' else {'step': updates}) | {slot: arrays[slot][name] for slot in arrays}
    for number, name in enumerate(names)
    if name in arrays[next(iter(arrays))]
  }
  return {'state': state if updates else {}, 'param_groups': release_groups(network, names, config, step)}


def release_groups(network: str, names: Sequence[str], config: Config, step: int) -> list[dict[str, Any]]:
  """The groups of one optimiser, as it left them in the last of `step` iterations.

  Args:
    network: gen, dis or id.
    names: of its parameters, in order.
    config: `optimizer` is read.
    step: iterations done.
  """
  settings = config.optimizer
  now = float(learning_rates(config, max(step - 1, 0))[OURS[network]])
  start = float(getattr(settings, f'{OURS[network]}_learning_rate'))
  if network != 'id':
    about: dict[str, Any] = {'betas': ADAM_BETAS, 'eps': ADAM_EPSILON, 'amsgrad': False}
    parts = [(1.0, '')]
  else:
    about = {'momentum': settings.reid_momentum, 'dampening': 0, 'nesterov': True}
    # The backbone, then a group for each head; the goldens show those of style AB only.
    modules = dict.fromkeys(name.partition('.')[0] for name in names)
    parts = [(1.0 if module == 'model' else settings.head_multiplier, f'{module}.') for module in modules]
  return [
    about
    | {'weight_decay': settings.weight_decay, 'lr': now * factor, 'initial_lr': start * factor}
    | {'params': [number for number, name in enumerate(names) if name.startswith(prefix)]}
    for factor, prefix in parts
  ]
