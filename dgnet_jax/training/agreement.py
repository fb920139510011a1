"""What the processes of a job decide together, so that none waits for a step that another does not take.

A process that fails alone, or that sees a folder differently, would leave the others in a collective operation for
ever. So the first process decides what is read, and a failure of one is a failure of all. With one process these
functions only call theirs, and so they do within each other: what runs in one process, or may fail in one, is not
interrupted by an exchange.
"""

from collections.abc import Callable
import json
import threading
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

from dgnet_jax.errors import Interrupted, MachineError, MissingSplit, NoMatches, UserError

T = TypeVar('T')
Tree = TypeVar('Tree')

ERRORS = (UserError, MachineError, MissingSplit, NoMatches, Interrupted)  # that are of one kind in every process
CHUNK = 2**26  # bytes in one message: bounds the memory on the devices

_this_thread = threading.local()


def is_alone() -> bool:
  """Returns True if there is no other process, or if this one runs something of its own."""
  return jax.process_count() == 1 or getattr(_this_thread, 'alone', False)


def from_first_process(function: Callable[[], T]) -> T:
  """Calls a function in the first process only, and returns its result in all.

  Args:
    function: returns what JSON can hold, or numbers of NumPy (tuples become lists in the other processes).

  Raises:
    UserError: the function raised one in the first process, or failed there in another way.
  """
  if is_alone():
    return function()

  def call() -> tuple[T, bytes]:
    result = function()
    return result, json.dumps(result, default=_number).encode()

  outcome, error = _attempt(call) if jax.process_index() == 0 else (None, None)
  _raise_together(error)
  result, data = outcome or (None, b'')
  received = _broadcast(data)
  return json.loads(received) if outcome is None else result  # type: ignore[return-value]


def arrays_from_first_process(function: Callable[[], Tree], like: Tree) -> Tree:
  """Calls a function in the first process only, and returns a copy of its arrays in all.

  Args:
    function: returns a pytree of numpy arrays.
    like: pytree of the same structure with their shapes and dtypes, in all processes.

  Raises:
    UserError: the function raised one in the first process, or failed there in another way.
  """
  if is_alone():
    return function()
  first = jax.process_index() == 0
  tree, error = _attempt(function) if first else (None, None)
  _raise_together(error)
  leaves, structure = jax.tree.flatten(like)
  own = jax.tree.leaves(tree) if first else []
  data = memoryview(_broadcast(b''.join(np.ascontiguousarray(leaf).tobytes() for leaf in own)))
  ends = np.cumsum([leaf.size * np.dtype(leaf.dtype).itemsize for leaf in leaves]).tolist()
  received = [
    np.frombuffer(data[start:end], leaf.dtype).reshape(leaf.shape)
    for leaf, start, end in zip(leaves, [0, *ends], ends, strict=False)
  ]
  copied: Tree = jax.tree.unflatten(structure, received)
  return copied


def in_all_processes(function: Callable[[], T]) -> T:
  """Calls a function in every process, and fails in all if it fails in one.

  Args:
    function: what each process does for itself.

  Returns:
    The result of this process.

  Raises:
    UserError: the function raised one in this process; or it failed in another, which the message names. `MachineError`
      if that was not a mistake.
  """
  if is_alone():
    return function()
  result, error = _attempt(function)
  _raise_together(error)
  return result  # type: ignore[return-value]


def gather_rows(rows: np.ndarray, num_rows: int) -> np.ndarray:
  """Joins the rows of all processes.

  Args:
    rows: [n, ...], this process's rows `share_of(num_rows)`.
    num_rows: rows of all processes together.

  Returns:
    [num_rows, ...], equal in every process.
  """
  if jax.process_count() == 1:
    return rows
  longest = -(-num_rows // jax.process_count())
  padded = np.concatenate([rows, np.zeros((longest - len(rows), *rows.shape[1:]), rows.dtype)])
  gathered = np.asarray(multihost_utils.process_allgather(padded))
  return gathered.reshape(-1, *rows.shape[1:])[:num_rows]


def share_of(num_rows: int) -> slice:
  """Returns which of `num_rows` rows are this process's: adjacent ones, the same number for each but the last."""
  longest = -(-num_rows // jax.process_count())
  return slice(jax.process_index() * longest, min((jax.process_index() + 1) * longest, num_rows))


def turns_of(count: int) -> range:
  """Returns which of `count` items are this process's if the processes take turns."""
  return range(jax.process_index(), count, jax.process_count())


def _number(value: Any) -> Any:
  """Returns a number of NumPy as one of Python, for JSON."""
  if isinstance(value, np.number | np.bool_):
    return value.item()
  raise TypeError(f'{type(value).__name__} cannot be passed on to other processes')


def _attempt(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
  _this_thread.alone = True
  try:
    return function(), None
  except Exception as error:  # any: the others must hear of it
    return None, error
  finally:
    _this_thread.alone = False


def _raise_together(error: Exception | None) -> None:
  """Raises an error if there is one in any process: its own where there is one, else that of the first that has one."""
  failed = np.asarray(multihost_utils.process_allgather(np.asarray(error is not None)))
  if not failed.any():
    return
  source = int(np.argmax(failed))
  other = UserError if isinstance(error, UserError) else MachineError
  kind = (type(error) if type(error) in ERRORS else other).__name__
  message = json.dumps([kind, str(error) if isinstance(error, UserError | Interrupted) else repr(error)])
  kind, reason = json.loads(_broadcast(message.encode(), source))
  if error is not None:
    raise error
  raise next(known for known in ERRORS if known.__name__ == kind)(f'process {source}: {reason}')


def _broadcast(data: bytes, source: int = 0) -> bytes:
  """Returns the bytes of process `source` in all processes."""
  is_source = jax.process_index() == source
  chunks = np.asarray(divmod(len(data), CHUNK), np.int32)  # 64 bits would need jax_enable_x64
  whole, rest = np.asarray(multihost_utils.broadcast_one_to_all(chunks, is_source=is_source)).tolist()
  length = whole * CHUNK + rest
  received = []
  for start in range(0, length, CHUNK):
    size = min(CHUNK, length - start)
    # A program is compiled for every size, so there are few of them.
    padded = np.zeros(1 << max(size - 1, 1023).bit_length(), np.uint8)
    if is_source:
      padded[:size] = np.frombuffer(data[start : start + size], np.uint8)
    received.append(np.asarray(multihost_utils.broadcast_one_to_all(padded, is_source=is_source))[:size].tobytes())
  return b''.join(received)
