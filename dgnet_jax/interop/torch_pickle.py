"""Interprets the pickles in PyTorch's files without executing anything that they name.

Written by hand because Python's unpicklers call whatever a file names, and interpret every opcode even if a subclass
restricts the names. Here `pickletools`, which executes nothing, splits the stream into opcodes. Only the thirty opcodes
that torch writes are interpreted, and only on data: a name is looked up in a table and never imported, and a tensor
becomes a `TensorRef`. Everything else is rejected.
"""

from collections.abc import Callable
import dataclasses
import io
import mmap
import pickletools
from typing import Any, cast
import warnings

import ml_dtypes
import numpy as np

from dgnet_jax.errors import UserError

Stream = io.BytesIO | mmap.mmap
MAX_OPCODES = 2_000_000  # the largest file of the release has 20,000
MAX_AXES = 64  # NumPy's
MAX_PAIRS = 1_000_000  # given to OrderedDict in a file; newer versions of torch give none

STORAGE_DTYPES = {
  'torch.DoubleStorage': np.dtype(np.float64),
  'torch.FloatStorage': np.dtype(np.float32),
  'torch.HalfStorage': np.dtype(np.float16),
  'torch.BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
  'torch.LongStorage': np.dtype(np.int64),
  'torch.IntStorage': np.dtype(np.int32),
  'torch.ShortStorage': np.dtype(np.int16),
  'torch.CharStorage': np.dtype(np.int8),
  'torch.ByteStorage': np.dtype(np.uint8),
  'torch.BoolStorage': np.dtype(np.bool_),
}


class Malformed(Exception):
  """The bytes are not a pickle that torch writes. The message says why."""


@dataclasses.dataclass(frozen=True)
class StorageRef:
  """A storage: `count` elements elsewhere in the file."""

  key: str
  dtype: np.dtype
  count: int


@dataclasses.dataclass(frozen=True)
class TensorRef:
  """A tensor as a view of a storage, in elements; not yet checked against the size of the storage."""

  storage: StorageRef
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Name:
  """A function or class, 'module.name', that the file refers to. It is never imported."""

  path: str


def _is_sizes(value: Any) -> bool:
  """Returns True for a tuple of at most `MAX_AXES` numbers of 63 bits."""
  return isinstance(value, tuple) and len(value) <= MAX_AXES and all(type(x) is int and 0 <= x < 2**63 for x in value)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorRef:
  if not isinstance(storage, StorageRef) or not _is_sizes((offset,)) or not _is_sizes(shape) or not _is_sizes(strides):
    raise Malformed('a tensor without a storage, or with an invalid shape')
  if len(shape) != len(strides):
    raise Malformed(f'a tensor of {len(shape)} axes with {len(strides)} strides')
  return TensorRef(storage, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> TensorRef:
  if not isinstance(data, TensorRef):
    raise Malformed('a parameter that is not a tensor')
  return data


def _size(sizes: Any) -> tuple[int, ...]:
  if not _is_sizes(sizes):
    raise Malformed('an invalid size')
  return tuple(sizes)


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
  if not isinstance(pairs, list | tuple):
    raise Malformed(f'an OrderedDict of a {type(pairs).__name__}')
  return {_key(key): value for key, value in pairs}


def _key(key: Any) -> Any:
  # No tuples: the time to hash one that contains another twice, and so on, grows exponentially with its depth. No long
  # integers: many of them can have one hash.
  if not isinstance(key, str | int):
    raise Malformed(f'a dictionary with a key that is a {type(key).__name__}')
  if isinstance(key, int) and not 0 <= key < 2**32:
    raise Malformed('a dictionary with a key that is a negative or long integer')
  return key


CALLABLE: dict[str, Callable[..., Any]] = {
  'torch._utils._rebuild_tensor': _tensor,
  'torch._utils._rebuild_tensor_v2': _tensor,
  'torch._utils._rebuild_parameter': _parameter,
  'torch.nn.parameter.Parameter': _parameter,
  'torch.Size': _size,
  'collections.OrderedDict': _ordered_dict,
}


class _Machine:
  """A pickle machine with the opcodes that torch writes."""

  def __init__(self, source: str) -> None:
    self._source = source
    self._stack: list[Any] = []
    self._marks: list[list[Any]] = []
    self._memo: dict[int, Any] = {}
    self._pairs = 0
    self.storages: dict[str, StorageRef] = {}

  def run(self, stream: Stream) -> Any:
    """Returns the object that the pickle at the stream's position describes."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(Any, stream))):
      if count > MAX_OPCODES:
        raise Malformed(f'more than {MAX_OPCODES} opcodes')
      if opcode.name == 'STOP':
        return self._stack.pop()
      handler = _HANDLERS.get(opcode.name)
      if handler is None:
        raise Malformed(f'the opcode {opcode.name}, which torch does not write')
      handler(self, argument)
    raise Malformed('the opcode STOP is missing')

  def push(self, value: Any) -> None:
    self._stack.append(value)

  def mark(self, _: Any) -> None:
    self._marks.append(self._stack)
    self._stack = []

  def _since_mark(self) -> list[Any]:
    items, self._stack = self._stack, self._marks.pop()
    return items

  def tuple_since_mark(self, _: Any) -> None:
    items = self._since_mark()
    self.push(tuple(items))

  def tuple_of(self, count: int) -> None:
    if len(self._stack) < count:
      raise Malformed('too few values')
    self._stack[-count:] = [tuple(self._stack[-count:])]

  def put(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def memoize(self, _: Any) -> None:
    self._memo[len(self._memo)] = self._stack[-1]

  def get(self, index: int) -> None:
    self.push(self._memo[index])

  def name(self, path: str) -> None:
    """Pushes a name from the tables; rejects all others."""
    if path not in CALLABLE and path not in STORAGE_DTYPES:
      raise UserError(
        f'{self._source}: rejected because it refers to {path[:100]!r}. Only tensors, numbers, strings, lists and '
        'dictionaries are read, and nothing in a file is executed. If you trust the file, load it where it was '
        'created and save a state dict: torch.save(model.state_dict(), FILE).'
      )
    self.push(_Name(path))

  def stack_name(self, _: Any) -> None:
    name, module = self._stack.pop(), self._stack.pop()
    self.name(f'{module}.{name}')

  def call(self, _: Any) -> None:
    arguments, function = self._stack.pop(), self._stack.pop()
    if not isinstance(function, _Name) or function.path not in CALLABLE or not isinstance(arguments, tuple):
      raise Malformed('a call of something that is not a function')
    self._pairs += sum(len(argument) for argument in arguments if isinstance(argument, list | tuple))
    if self._pairs > MAX_PAIRS:  # a list that is given again and again
      raise Malformed(f'calls with more than {MAX_PAIRS} values')
    self.push(CALLABLE[function.path](*arguments))

  def build(self, _: Any) -> None:
    """Drops the attributes of an OrderedDict (module versions) or Parameter."""
    self._stack.pop()
    if not isinstance(self._stack[-1], dict | TensorRef):
      raise Malformed('attributes of an object that has none')

  def storage(self, _: Any) -> None:
    identity = self._stack.pop()
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != 'storage':
      raise Malformed('a reference to something that is not a storage')
    _, kind, key, _, count, *view = identity
    if not isinstance(kind, _Name) or kind.path not in STORAGE_DTYPES or not isinstance(key, str):
      raise Malformed('a storage without a type or key')
    if not _is_sizes((count,)) or any(part is not None for part in view):
      raise Malformed(f'the storage {key[:40]!r} is a view of another, or has an invalid size')
    ref = StorageRef(key, STORAGE_DTYPES[kind.path], count)
    if self.storages.setdefault(key, ref) != ref:
      raise Malformed(f'the storage {key[:40]!r} has two types or sizes')
    self.push(ref)

  def append(self, _: Any) -> None:
    value = self._stack.pop()
    self._extend([value])

  def append_since_mark(self, _: Any) -> None:
    self._extend(self._since_mark())

  def _extend(self, items: list[Any]) -> None:
    if not isinstance(self._stack[-1], list):
      raise Malformed('an element appended to something that is not a list')
    self._stack[-1].extend(items)

  def set_item(self, _: Any) -> None:
    value, key = self._stack.pop(), self._stack.pop()
    self._update([key, value])

  def set_since_mark(self, _: Any) -> None:
    self._update(self._since_mark())

  def _update(self, items: list[Any]) -> None:
    if not isinstance(self._stack[-1], dict):
      raise Malformed('an entry set in something that is not a dictionary')
    for key, value in zip(items[::2], items[1::2], strict=True):
      self._stack[-1][_key(key)] = value


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
  **dict.fromkeys(('PROTO', 'FRAME'), lambda machine, _: None),
  **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'), _Machine.push),
  **dict.fromkeys(('BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'BINSTRING', 'SHORT_BINSTRING'), _Machine.push),
  'NONE': lambda machine, _: machine.push(None),
  'NEWTRUE': lambda machine, _: machine.push(True),
  'NEWFALSE': lambda machine, _: machine.push(False),
  'EMPTY_DICT': lambda machine, _: machine.push({}),
  'EMPTY_LIST': lambda machine, _: machine.push([]),
  'EMPTY_TUPLE': lambda machine, _: machine.push(()),
  'MARK': _Machine.mark,
  'TUPLE': _Machine.tuple_since_mark,
  'TUPLE1': lambda machine, _: machine.tuple_of(1),
  'TUPLE2': lambda machine, _: machine.tuple_of(2),
  'TUPLE3': lambda machine, _: machine.tuple_of(3),
  **dict.fromkeys(('BINPUT', 'LONG_BINPUT'), _Machine.put),
  'MEMOIZE': _Machine.memoize,
  **dict.fromkeys(('BINGET', 'LONG_BINGET'), _Machine.get),
  'GLOBAL': lambda machine, path: machine.name(path.replace(' ', '.', 1)),
  'STACK_GLOBAL': _Machine.stack_name,
  **dict.fromkeys(('REDUCE', 'NEWOBJ'), _Machine.call),
  'BUILD': _Machine.build,
  'BINPERSID': _Machine.storage,
  'APPEND': _Machine.append,
  'APPENDS': _Machine.append_since_mark,
  'SETITEM': _Machine.set_item,
  'SETITEMS': _Machine.set_since_mark,
}


def read_pickle(stream: Stream, source: str) -> tuple[Any, dict[str, StorageRef]]:
  """Interprets one pickle, and leaves the stream at its end.

  Args:
    stream: a stream at the start of the pickle.
    source: the file, for messages.

  Returns:
    Dictionaries, lists, tuples, numbers, strings and `TensorRef`s, which may contain themselves; and the storages by
    key.

  Raises:
    UserError: the pickle refers to a class or function that is not in the tables.
    Malformed: the bytes are not a pickle that torch writes.
  """
  machine = _Machine(source)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', DeprecationWarning)  # invalid escapes in strings that are rejected anyway
      return machine.run(stream), machine.storages
  except (ValueError, IndexError, KeyError, TypeError, UnicodeError, OverflowError) as error:
    # Malformed input makes pickletools and the handlers raise these: truncated data, an empty stack, wrong arguments.
    raise Malformed(f'{type(error).__name__}: {error}') from error
