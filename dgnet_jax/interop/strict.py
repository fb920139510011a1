"""State dicts read strictly: every name and shape must be the one expected, or all that is wrong is told at once."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import fnmatch
import logging
from typing import Any

import numpy as np

from dgnet_jax.errors import UserError
from dgnet_jax.interop.torch_names import Entry, from_torch, torch_shapes

logger = logging.getLogger(__name__)


StateDict = Mapping[str, np.ndarray]

# Arrays of the release that nothing reads: counters of BatchNorm calls (its momentum is fixed), the ImageNet head,
# which gets no gradient (release fact 20), AdaIN's running statistics, which never move (fact 20), and those of the
# discriminator, which always normalises by the batch.
WITHOUT_A_PLACE = (
  '*num_batches_tracked',
  'model.fc.weight',
  'model.fc.bias',
  'fc.weight',
  'fc.bias',
  'dec.*.norm.running_mean',
  'dec.*.norm.running_var',
  'cnns.*.norm.running_mean',
  'cnns.*.norm.running_var',
)


@dataclasses.dataclass(frozen=True)
class Loaded:
  """variables: ours, float32. extras: what the state dict has of `WITHOUT_A_PLACE`. order: all its names."""

  variables: dict[str, Any]
  extras: dict[str, np.ndarray]
  order: tuple[str, ...]


def _matches(name: str, patterns: Iterable[str]) -> bool:
  return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def has_no_place(name: str) -> bool:
  """Whether the release's array of this name is one that ours lack."""
  return _matches(name, WITHOUT_A_PLACE)


def check_state_dict(value: Any, where: str) -> dict[str, np.ndarray]:
  """`value` if it is names with arrays.

  Raises:
    UserError: it is something else.
  """
  if not isinstance(value, dict) or not value or not all(isinstance(x, np.ndarray) for x in value.values()):
    raise UserError(f'{where}: no state dict (names with arrays) is in it')
  return {str(name): array for name, array in value.items()}


def load_strictly(
  state_dict: StateDict,
  entries: Sequence[Entry],
  template: Mapping[str, Any],
  *,
  where: str,
  drop: Sequence[str] | None = (),
) -> Loaded:
  """Our variables from a state dict in which nothing is missing, unexpected or of another shape.

  Args:
    state_dict: of the release, or of torchvision.
    entries: what is expected.
    template: our variables, or their shapes.
    where: the file, for messages.
    drop: patterns of unexpected names that may be left out; each name left out is told. None: the person has no say.

  Raises:
    UserError: every missing, unexpected and mis-shaped name, and those that are no floating-point numbers.
  """
  expected = torch_shapes(template, entries)
  missing = [name for name in expected if name not in state_dict]
  extra = [n for n in state_dict if n not in expected and not has_no_place(n)]
  dropped = [name for name in extra if _matches(name, drop or ())]
  extra = [name for name in extra if name not in dropped]
  present = {name: array for name, array in state_dict.items() if name in expected}
  misshaped = [
    f'{name} {list(array.shape)}, expected {list(expected[name])}'
    for name, array in present.items()
    if array.shape != expected[name]
  ]
  whole_numbers = [f'{name} is {array.dtype}' for name, array in present.items() if array.dtype.kind in 'iub']
  way_out = '' if drop is None else ' (--drop-extra PATTERN leaves them out)'
  problems = _listed('missing', missing) + _listed(f'unexpected{way_out}', extra)
  problems += _listed('of another shape', misshaped) + _listed('no floating-point numbers', whole_numbers)
  if problems:
    raise UserError('\n  '.join([f'{where} does not fit:', *problems]))
  if dropped:
    logger.info(f'{where}: dropped as asked: {", ".join(dropped)}')
    gammas = [float(np.abs(state_dict[name]).max()) for name in dropped if name.endswith('.gamma')]
    if gammas:
      effect = f'add up to {max(gammas):.3g} times their output: without them results differ'
      logger.info(
        f'{where}: {len(gammas)} non-local blocks dropped {effect if max(gammas) else "added nothing (gamma is 0)"}'
      )
  converted = sorted({str(array.dtype) for array in present.values() if array.dtype != np.float32})
  if converted:
    logger.info(f'{where}: {", ".join(converted)} converted to float32')
  extras = {n: array for n, array in state_dict.items() if n not in expected and has_no_place(n)}
  single = {name: array.astype(np.float32, copy=False) for name, array in present.items()}
  return Loaded(from_torch(single, entries), extras, tuple(state_dict))


def _listed(what: str, names: Sequence[str]) -> list[str]:
  return [f'{len(names)} {what}: {", ".join(names)}'] if names else []
