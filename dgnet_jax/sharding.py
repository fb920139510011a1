"""How arrays lie on devices: one mesh axis 'data', batches split along it, everything else on every device."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
import numpy as np

DATA_AXIS = 'data'


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of one axis 'data' over all devices of all processes, or over `devices`.

  Devices are ordered by process, so a process's rows of a batch are adjacent, as the samplers give them.
  """
  chosen = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
  # The default, Explicit axes, would ask every layer for shardings.
  return Mesh(np.array(chosen), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Splits the first axis of an array over the mesh."""
  return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
  """A whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def put_everywhere(tree: Any, sharding: Sharding) -> Any:
  """`jax.device_put` of arrays that are the same in every process, also on devices of other processes."""
  if sharding.is_fully_addressable:
    return jax.device_put(tree, sharding)

  def place(leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

  return jax.tree.map(place, tree)
