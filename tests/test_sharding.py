"""The mesh, and the placement of arrays on it."""

import jax
from jax.sharding import AxisType
import numpy as np

from dgnet_jax.sharding import batch_sharding, device_put_global, make_mesh, replicated


def test_mesh_has_one_automatic_axis_over_all_devices():
  mesh = make_mesh()
  assert mesh.axis_names == ('data',) and mesh.axis_types == (AxisType.Auto,)
  assert list(mesh.devices) == jax.devices()


def test_mesh_orders_devices():
  some = jax.devices()[:4]
  assert list(make_mesh(some[::-1]).devices) == some


def test_batches_are_split_and_other_arrays_replicated():
  mesh = make_mesh()
  x = np.arange(32).reshape(16, 2)
  split, copied = jax.device_put(x, batch_sharding(mesh)), jax.device_put(x, replicated(mesh))
  rows = 16 // jax.device_count()
  for i, shard in enumerate(split.addressable_shards):
    np.testing.assert_array_equal(shard.data, x[i * rows : (i + 1) * rows])
  assert all(shard.data.shape == x.shape for shard in copied.addressable_shards)


def test_device_put_global_places_every_leaf():
  sharding = replicated(make_mesh())
  placed = device_put_global({'x': np.arange(3), 'key': jax.random.key(1)}, sharding)
  assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(placed))
  np.testing.assert_array_equal(placed['x'], np.arange(3))
  np.testing.assert_array_equal(jax.random.key_data(placed['key']), jax.random.key_data(jax.random.key(1)))
