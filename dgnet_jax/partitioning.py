"""How arrays lie on devices: one mesh axis 'data', batches split along it, everything else on every device."""

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
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
