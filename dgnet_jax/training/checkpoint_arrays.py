"""The arrays of a checkpoint: names, checksums, placement on devices, and the reasons why they cannot be read."""

from collections.abc import Iterator, Mapping
import hashlib
import os
import re
from typing import Any

import jax
from jax import dtypes
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from dgnet_jax.sharding import device_put_global
from dgnet_jax.utils.text import shortened

MAX_REASON = 500  # characters
MAX_AXES = 32
MAX_AXIS = 2**31
Form = dict[str, tuple[str, list[int]]]  # dtype and shape by name

# A file that should be there is not: the checkpoint is incomplete, the storage works.
_MISSING_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
# TensorStore, which reads the arrays, raises ValueErrors that begin with a status, and end with the system's error.
_STORAGE_STATUS = re.compile(
  r'(UNAVAILABLE|PERMISSION_DENIED|UNAUTHENTICATED|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b'
  r"|.*\bos_error_code='\d+'",
  re.DOTALL,
)

_SYSTEM_ERROR = re.compile(r"\bos_error_code='(\d{1,4})'")


def named_leaves(tree: Any) -> dict[str, Any]:
  """Returns the leaves by their path, a/b/c; attributes of a dataclass and keys of a dictionary give the same path."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in flat}


def describe(leaf: Any) -> dict[str, Any]:
  """Returns the dtype, shape and SHA-256 checksum of an array, in a form that JSON can hold."""
  host = np.asarray(leaf)
  content = np.ascontiguousarray(host).reshape(-1).view(np.uint8)
  return {'dtype': str(host.dtype), 'shape': list(host.shape), 'sha256': hashlib.sha256(content.data).hexdigest()}


def not_finite(tree: Any) -> list[str]:
  """Returns the names of the arrays of real numbers that contain NaN or infinity."""
  return [
    name
    for name, leaf in named_leaves(tree).items()
    if jnp.issubdtype(leaf.dtype, np.floating) and not _is_finite(leaf)
  ]


def _is_finite(leaf: Any) -> bool:
  if is_in_parts(leaf):
    return bool(jnp.isfinite(leaf).all())
  return bool(np.isfinite(np.asarray(leaf)).all())


def is_in_parts(leaf: Any) -> bool:
  """Returns True if this process holds only a part of an array, so that what is done with it, all processes do."""
  return isinstance(leaf, jax.Array) and not (leaf.is_fully_replicated or leaf.is_fully_addressable)


def check_description(about: Any) -> None:
  """Raises ValueError unless `about` is {'leaves': by name what `describe` returns, 'config': a config}, from JSON."""
  leaves, config = (about.get(name) if isinstance(about, Mapping) else None for name in ('leaves', 'config'))
  if not isinstance(leaves, Mapping) or not isinstance(config, Mapping):
    raise ValueError('its description is not one of a checkpoint')
  if not isinstance(config.get('generator', {}), Mapping):  # read before the config is validated
    raise ValueError('its config is not one of a run')
  for name, leaf in leaves.items():
    valid = isinstance(leaf, Mapping) and isinstance(leaf.get('dtype'), str) and isinstance(leaf.get('sha256'), str)
    shape = leaf.get('shape') if valid else None
    if not isinstance(shape, list | tuple) or len(shape) > MAX_AXES:
      raise ValueError(f'its description of {shortened(str(name))} is not one of an array')
    if not all(type(size) is int and 0 <= size < MAX_AXIS for size in shape):
      raise ValueError(f'its array {shortened(str(name))} has an impossible shape')


def saved_form(leaves: Mapping[str, Mapping[str, Any]]) -> Form:
  """Returns the form of arrays from their descriptions."""
  return {name: (leaf['dtype'], leaf['shape']) for name, leaf in leaves.items()}


def form_of(tree: Any) -> Form:
  """Returns the form of a pytree of arrays or ShapeDtypeStructs."""
  return {name: (str(leaf.dtype), list(leaf.shape)) for name, leaf in named_leaves(tree).items()}


def mismatches(saved: Form, wanted: Form, *, partial: bool) -> list[str]:
  """Returns one phrase for every array in which the forms differ, parameters first.

  Args:
    saved: form of the checkpoint.
    wanted: form of the template.
    partial: ignore saved arrays that are not wanted.
  """
  names = wanted.keys() if partial else saved.keys() | wanted.keys()
  wrong = [name for name in names if saved.get(name) != wanted.get(name)]
  wrong.sort(key=lambda name: ('opt_state' in name, name))
  return [f'{name}: {saved.get(name, "absent")} in the checkpoint, {wanted.get(name, "absent")} here' for name in wrong]


def is_key(leaf: Any) -> bool:
  """Returns True for typed random keys."""
  return bool(dtypes.issubdtype(leaf.dtype, dtypes.prng_key))  # type: ignore[attr-defined]


def key_to_data(leaf: Any) -> Any:
  """Returns the numbers of a typed random key, and any other array unchanged."""
  return jax.random.key_data(leaf) if is_key(leaf) else leaf


def gathered_on_host(tree: Any, *, wanted: bool) -> Any:
  """Copies arrays to the memory of this process; all processes call it, because each holds a part of split arrays.

  Args:
    tree: pytree of arrays without typed keys, the same on every process.
    wanted: False for a process that only gives its parts.

  Returns:
    A pytree of whole numpy arrays that share no memory with the devices; of Nones if not `wanted`.
  """

  def copy(leaf: Any) -> np.ndarray | None:
    if is_in_parts(leaf):
      leaf = multihost_utils.process_allgather(leaf, tiled=True)  # one by one: a device needs room for the largest
    return np.array(leaf) if wanted else None

  return jax.tree.map(copy, tree)


def place(data: np.ndarray, template: Any) -> jax.Array | np.ndarray:
  """Puts a host array on the devices of `template`, as a typed key if `template` is one.

  Args:
    data: the same on every process.
    template: array or ShapeDtypeStruct; without a sharding the default device is used. A numpy array leaves `data` on
      the host.
  """
  if isinstance(template, np.ndarray):
    return data
  array: jax.Array | np.ndarray = data
  if is_key(template):
    array = jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(jnp.empty((), template.dtype)))
  sharding = getattr(template, 'sharding', None)
  return jnp.asarray(array if sharding is None else device_put_global(array, sharding))


def short_reason(error: BaseException) -> str:
  """Returns the first line of an error's message without TensorStore's specification of the array, or its type.

  What happened is at its end, after the paths of files, so a long one loses its middle.
  """
  lines = str(error).partition(' [tensorstore_spec=')[0].splitlines()
  if not lines:
    return type(error).__name__
  half = MAX_REASON // 2
  return lines[0] if len(lines[0]) <= MAX_REASON else f'{lines[0][:half]} ... {lines[0][-half:]}'


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def is_storage_error(error: BaseException) -> bool:
  """Returns True if an error comes from the storage or the machine, and says nothing about what a file contains."""
  for cause in _chain(error):
    if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and not isinstance(cause, _MISSING_FILE)):
      return True
    if isinstance(cause, ValueError) and _STORAGE_STATUS.match(str(cause)):
      return True
  return False


def storage_reason(error: BaseException) -> str:
  """Returns the system's message for a storage error, or the first line of its own."""
  for cause in _chain(error):
    if isinstance(cause, OSError) and cause.strerror:
      return cause.strerror
    if match := _SYSTEM_ERROR.search(str(cause)):
      return os.strerror(int(match[1]))
  return short_reason(error)
