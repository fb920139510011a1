"""Converts state dicts strictly: every name and shape must be as expected, and all problems are reported at once."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import fnmatch
import logging
from typing import Any

import numpy as np

from dgnet_jax.errors import UserError
from dgnet_jax.interop.torch_names import Entry, from_torch, torch_shapes
from dgnet_jax.utils.text import shortened

logger = logging.getLogger(__name__)

StateDict = Mapping[str, np.ndarray]
MAX_ARRAYS = 10_000  # of a state dict; ResNet-50 has 320
MAX_NAME = 300  # characters

WRAPPERS = ('state_dict', 'model_state_dict', 'model', 'net')  # keys under which training programs save a state dict
MAX_WRAPPERS = 4  # around one another
MAX_LISTED = 5  # keys in one message

# Arrays of the release that nothing reads: counters of BatchNorm calls (its momentum is fixed), the ImageNet head,
# which gets no gradient (release fact 20), AdaIN's running statistics, which never change (fact 20), and those of the
# discriminator, which always normalizes with batch statistics.
UNUSED_ARRAYS = (
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
  """A converted state dict.

  Attributes:
    variables: ours, float32.
    extras: its `UNUSED_ARRAYS`.
    order: all its names.
  """

  variables: dict[str, Any]
  extras: dict[str, np.ndarray]
  order: tuple[str, ...]


def _matches(name: str, patterns: Iterable[str]) -> bool:
  return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def is_unused(name: str) -> bool:
  """Returns True if an array of this name in the release has no counterpart here."""
  return _matches(name, UNUSED_ARRAYS)


def check_state_dict(value: Any, source: str) -> dict[str, np.ndarray]:
  """Returns `value` if it is a state dict.

  Args:
    value: content of a file.
    source: the file, for messages.

  Raises:
    UserError: it is something else.
  """
  if not isinstance(value, dict) or not value or not all(isinstance(x, np.ndarray) for x in value.values()):
    keys = f'; it has {_keys(value)}' if isinstance(value, dict) else ''
    raise UserError(f'{source}: not a state dict (names with arrays){keys}')
  if len(value) > MAX_ARRAYS or any(len(str(name)) > MAX_NAME for name in value):
    raise UserError(
      f'{source}: a state dict of more than {MAX_ARRAYS} arrays, or of names of more than {MAX_NAME} characters'
    )
  return {str(name): array for name, array in value.items()}


def _keys(value: Mapping[Any, Any]) -> str:
  more = f' and {len(value) - MAX_LISTED} more' if len(value) > MAX_LISTED else ''
  return f'{", ".join(shortened(repr(key)) for key in list(value)[:MAX_LISTED]) or "nothing"}{more}'


def unwrapped(value: Any, source: str) -> dict[str, np.ndarray]:
  """Returns the state dict in the content of a file, without what training programs put around it.

  That is a dictionary that has the epoch and so on, too, and a prefix of all names, like the module. of torch's
  DataParallel. What was taken off is logged.

  Args:
    value: content of a file.
    source: the file, for messages.

  Raises:
    UserError: there is no state dict in it.
  """
  for _ in range(MAX_WRAPPERS):  # a file may hold a dictionary in itself
    key = next((key for key in WRAPPERS if isinstance(value, dict) and isinstance(value.get(key), dict)), None)
    if key is None:
      break
    logger.info(f'{source}: read {key!r} of {_keys(value)}')
    value = value[key]
  state_dict = check_state_dict(value, source)
  while len(firsts := {name.partition('.')[0] for name in state_dict}) == 1 and all('.' in name for name in state_dict):
    prefix = f'{firsts.pop()}.'
    logger.info(f'{source}: removed {prefix} from the names of all arrays')
    state_dict = {name.removeprefix(prefix): array for name, array in state_dict.items()}
  return state_dict


def load_strictly(
  state_dict: StateDict,
  entries: Sequence[Entry],
  template: Mapping[str, Any],
  *,
  source: str,
  drop: Sequence[str] | None = None,
  unused: Sequence[str] = (),
) -> Loaded:
  """Converts a state dict in which no array is missing, unexpected or of another shape.

  Args:
    state_dict: of the release, or of a file with ImageNet weights.
    entries: the expected arrays.
    template: our variables or their shapes.
    source: the file, for messages.
    drop: patterns of unexpected arrays that may be dropped; they are logged. None if the program has no --drop-extra.
    unused: patterns of arrays without a counterpart here, like `UNUSED_ARRAYS`.

  Raises:
    UserError: arrays are missing, unexpected, of another shape, not floating-point, or not finite. The message lists
      all of them.
  """
  expected = torch_shapes(template, entries)
  extras = {
    name: array
    for name, array in state_dict.items()
    if name not in expected and (is_unused(name) or _matches(name, unused))
  }
  unexpected = [name for name in state_dict if name not in expected and name not in extras]
  dropped = [name for name in unexpected if _matches(name, drop or ())]
  present = {name: array for name, array in state_dict.items() if name in expected}
  advice = '' if drop is None else ' (--drop-extra PATTERN drops them)'
  problems = {
    'missing': [name for name in expected if name not in state_dict],
    f'unexpected{advice}': [name for name in unexpected if name not in dropped],
    'of another shape': [
      f'{name} {list(array.shape)}, expected {list(expected[name])}'
      for name, array in present.items()
      if array.shape != expected[name]
    ],
    'not floating-point': [f'{name} is {array.dtype}' for name, array in present.items() if array.dtype.kind in 'iub'],
    'not finite': [name for name, array in present.items() if not np.isfinite(array).all()],
  }
  lines = [f'{len(names)} {problem}: {", ".join(names)}' for problem, names in problems.items() if names]
  if lines:
    raise UserError('\n  '.join([f'{source} does not fit:', *lines]))
  if dropped:
    _log_dropped(state_dict, dropped, source)
  converted = sorted({str(array.dtype) for array in present.values() if array.dtype != np.float32})
  if converted:
    logger.info(f'{source}: {", ".join(converted)} converted to float32')
  single = {name: array.astype(np.float32, copy=False) for name, array in present.items()}
  return Loaded(from_torch(single, entries), extras, tuple(state_dict))


def _log_dropped(state_dict: StateDict, dropped: Sequence[str], source: str) -> None:
  """Logs the dropped names, and how much dropped non-local blocks contributed."""
  logger.info(f'{source}: dropped as requested: {", ".join(dropped)}')
  gammas = [float(np.abs(state_dict[name]).max()) for name in dropped if name.endswith('.gamma')]
  largest = max(gammas, default=0.0)
  if largest:
    logger.warning(
      f'{source}: {len(gammas)} non-local blocks dropped that add up to {largest:.3g} times their output; results will '
      'differ'
    )
  elif gammas:
    logger.info(f'{source}: {len(gammas)} non-local blocks dropped that contribute nothing (gamma is 0)')
