"""Placement of arrays on devices: batches are split along the mesh axis 'data', everything else is replicated."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
import numpy as np

from dgnet_jax.errors import UserError

DATA_AXIS = 'data'

Tree = TypeVar('Tree')


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Makes a one-dimensional mesh with axis 'data'.

  Devices are ordered by process, so that a process holds adjacent rows of a batch, as the samplers deliver them.

  Args:
    devices: default: all devices of all processes.
  """
  chosen = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
  # With Explicit axes, the default, every layer would need a sharding.
  return Mesh(np.array(chosen), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits an array's first axis over the mesh."""
  return NamedSharding(mesh, PartitionSpec(DATA_AXIS))  # type: ignore[no-untyped-call]


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that puts a full copy of an array on every device."""
  return NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]


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
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
      return leaf
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
  """Returns replicated arrays as arrays of this process's first device, for work that other processes have no part in.

  Args:
    tree: arrays with the sharding `replicated`.
  """
  copied: Tree = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
  return copied
