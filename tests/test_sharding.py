"""The mesh and what lies where on it."""

import jax
from jax.sharding import AxisType
import numpy as np

from dgnet_jax.sharding import batch_sharding, make_mesh, replicated


def test_mesh_has_one_automatic_axis_over_all_devices():
  mesh = make_mesh()
  assert mesh.axis_names == ('data',) and mesh.axis_types == (AxisType.Auto,)
  assert list(mesh.devices) == jax.devices()


def test_devices_are_ordered():
  some = jax.devices()[:4]
  assert list(make_mesh(some[::-1]).devices) == some


def test_shardings():
  mesh = make_mesh()
  x = np.arange(32).reshape(16, 2)
  split, whole = jax.device_put(x, batch_sharding(mesh)), jax.device_put(x, replicated(mesh))
  rows = 16 // jax.device_count()
  for i, shard in enumerate(split.addressable_shards):
    np.testing.assert_array_equal(shard.data, x[i * rows : (i + 1) * rows])
  assert all(shard.data.shape == x.shape for shard in whole.addressable_shards)
