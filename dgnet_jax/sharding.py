"""Placement of arrays on devices: batches are split over all of them, and most other arrays are replicated.

The mesh has the axis 'data'. With the second axis 'model', the classifiers and their logits are split by identity along
it (`model_devices`).
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
import numpy as np

from dgnet_jax.errors import UserError

DATA_AXIS, MODEL_AXIS = 'data', 'model'

Tree = TypeVar('Tree')


def make_mesh(devices: Sequence[jax.Device] | None = None, model_devices: int = 1) -> Mesh:
  """Makes a mesh with the axis 'data', and, for more than one of `model_devices`, with the axis 'model' of that length.

  Devices are ordered by process, so that a process holds adjacent rows of a batch, as the samplers deliver them.

  Args:
    devices: default: all devices of all processes.
    model_devices: neighbours that split the classifiers among them.

  Raises:
    UserError: `model_devices` does not divide the number of devices.
  """
  chosen = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
  # With Explicit axes, the default, every layer would need a sharding.
  if model_devices == 1:
    return Mesh(np.array(chosen), (DATA_AXIS,), axis_types=(AxisType.Auto,))
  check_model_devices(model_devices, len(chosen))
  grid = np.array(chosen).reshape(-1, model_devices)
  return Mesh(grid, (DATA_AXIS, MODEL_AXIS), axis_types=(AxisType.Auto, AxisType.Auto))


def check_model_devices(model_devices: int, num_devices: int) -> None:
  """Raises UserError if the devices cannot form groups of `model_devices`."""
  if num_devices % model_devices:
    sizes = ', '.join(str(size) for size in range(1, num_devices + 1) if num_devices % size == 0)
    raise UserError(f'model_devices: {model_devices} does not divide {num_devices} device(s); use one of {sizes}')


def splits_classifiers(mesh: Mesh) -> bool:
  """Returns True if the mesh has the axis 'model'."""
  return MODEL_AXIS in mesh.axis_names


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits an array's first axis over all devices of the mesh."""
  axes = (DATA_AXIS, MODEL_AXIS) if splits_classifiers(mesh) else DATA_AXIS
  return NamedSharding(mesh, PartitionSpec(axes))  # type: ignore[no-untyped-call]


def rows_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits an array's first axis along 'data' only."""
  return NamedSharding(mesh, PartitionSpec(DATA_AXIS))  # type: ignore[no-untyped-call]


def identity_sharding(mesh: Mesh, rows: str | None = None, num_axes: int = 2) -> NamedSharding:
  """Returns the sharding that splits the last axis, that of the identities, along 'model'; and the first along `rows`.

  Args:
    mesh: with the axis 'model'.
    rows: 'data' for logits, None for parameters.
    num_axes: of the array.
  """
  spec = [rows, *[None] * (num_axes - 2), MODEL_AXIS] if num_axes > 1 else [MODEL_AXIS]
  return NamedSharding(mesh, PartitionSpec(*spec))  # type: ignore[no-untyped-call]


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that puts a full copy of an array on every device."""
  return NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]


def constrained(x: jax.Array, sharding: NamedSharding) -> jax.Array:
  """Returns an array of a jitted function, which gets this sharding there; it need not divide the axes."""
  result: jax.Array = jax.lax.with_sharding_constraint(x, sharding)  # type: ignore[no-untyped-call]
  return result


def device_put_global(tree: Tree, sharding: Sharding) -> Tree:
  """`jax.device_put` that also works for shardings over devices of other processes.

  Args:
    tree: arrays, equal in every process; typed PRNG keys are allowed.
    sharding: sharding of every leaf.

  Returns:
    The tree as global arrays.
  """

  def place(leaf: jax.typing.ArrayLike) -> jax.Array:
    placed: jax.Array
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      placed = jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    else:
      host = np.asarray(leaf)
      placed = jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
    return placed

  placed_tree: Tree = jax.device_put(tree, sharding) if sharding.is_fully_addressable else jax.tree.map(place, tree)
  return placed_tree


def place_rows(tree: Tree, sharding: NamedSharding) -> Tree:
  """Makes global arrays of the rows of every process.

  Args:
    tree: numpy arrays [B, ...], this process's rows; arrays that have the sharding already stay as they are.
    sharding: from `batch_sharding`.

  Raises:
    UserError: the rows do not divide among this process's devices.
  """
  devices = len(sharding.mesh.local_devices)

  def place(leaf: np.ndarray | jax.Array) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
      same: jax.Array = jax.device_put(leaf, sharding)  # copies nothing
      return same
    if len(leaf) % devices:
      raise UserError(f'a batch of {len(leaf)} is not divisible by {devices} devices; change batch_size')
    placed: jax.Array = jax.make_array_from_process_local_data(sharding, leaf)  # type: ignore[no-untyped-call]
    return placed

  placed_tree: Tree = jax.tree.map(place, tree)
  return placed_tree


def local_rows(array: np.ndarray | jax.Array) -> np.ndarray:
  """Inverts `place_rows` for one array: returns this process's rows as a numpy array; numpy arrays stay as they are."""
  if isinstance(array, np.ndarray):
    return array
  shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
  return np.concatenate([shard.data for shard in shards])


def local_copy(tree: Tree) -> Tree:
  """Returns what this process's first device has of arrays, for work that other processes have no part in.

  Args:
    tree: global arrays; of those with the sharding `replicated` that is all.
  """
  copied: Tree = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
  return copied
