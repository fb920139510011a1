"""Two processes on one machine: arrays and batches on the devices of both, checkpoints, the lock of the work folder."""

import socket
import subprocess
import sys

from dgnet_jax.training.run_lock import run_lock
from tests.data.folders import write_market

CONNECT = """
import sys
import jax
jax.distributed.initialize(coordinator_address=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import numpy as np
from dgnet_jax.sharding import device_put_global, make_mesh, replicated
mesh = make_mesh()
assert jax.process_count() == mesh.size == 2
def tree(step):
  host = {'key': jax.random.key(3), 'array': np.arange(4.0, dtype=np.float32), 'step': jax.numpy.int32(step)}
  return device_put_global(host, replicated(mesh))
"""

PLACE = """
placed = tree(7)
assert all(leaf.sharding == replicated(mesh) for leaf in jax.tree.leaves(placed))
total = jax.jit(lambda x: x['array'].sum() + x['step'] + jax.random.uniform(x['key']))(placed)
np.testing.assert_allclose(total, 13 + jax.random.uniform(jax.random.key(3)), rtol=1e-6)
"""

# The second save replaces the checkpoint of step 4, as after a damaged one.
SAVE_AND_REPLACE = """
import contextlib
from dgnet_jax.training.checkpoints import Checkpoints
with contextlib.closing(Checkpoints(sys.argv[3], 3)) as checkpoints:
  for step in (2, 4, 3):
    checkpoints.save(step, tree(step), wait=True)
  assert checkpoints.latest_step() == 3
with contextlib.closing(Checkpoints(sys.argv[3], 3)) as checkpoints:
  restored = checkpoints.restore(tree(0))
assert int(restored['step']) == 3 and restored['array'].sharding == replicated(mesh)
"""

# Each process gets its rows, and both the same arrays whether the images are on the devices or in memory.
FEED = """
import contextlib
from dgnet_jax.config.schema import Config, DataConfig, TeacherConfig
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.sharding import batch_sharding, local_rows
split, batches = read_layout(sys.argv[3]).train, {}
for loader in ('memory', 'device'):
  data = DataConfig(loader=loader, image_size_hw=(16, 8), decode_threads=2)
  source = make_source(split, Config(batch_size=4, data=data, teacher=TeacherConfig(batch_size=2)))
  batches[loader] = []
  for iterator in (source.batches(3), source.single_batches(3)):
    with contextlib.closing(device_batches(iterator, mesh)) as fed:
      batches[loader] += [next(fed), next(fed)]
for one, other in zip(*map(jax.tree.leaves, batches.values()), strict=True):
  assert one.shape == other.shape and one.sharding == other.sharding == batch_sharding(mesh)
  np.testing.assert_array_equal(local_rows(one), local_rows(other))
drawn = source.sampler.batch(3)['identity']
assert drawn.shape == (2, 2)
np.testing.assert_array_equal(local_rows(batches['device'][0].identity), drawn)
"""

# Another job holds the lock of the first folder, nobody that of the second.
LOCK = """
from dgnet_jax.errors import UserError
from dgnet_jax.training.run_lock import run_lock
try:
  with run_lock(sys.argv[3]):
    raise SystemExit('locked twice')
except UserError as error:
  assert 'is in use by another' in str(error)
with run_lock(sys.argv[4]), run_lock(sys.argv[4]):
  pass
"""


def free_port():
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def run_in_two_processes(script, *arguments):
  address = f'localhost:{free_port()}'
  environment = {'JAX_PLATFORMS': 'cpu', 'PATH': '', 'PYTHONPATH': ':'.join(sys.path)}
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', CONNECT + script, address, str(i), *arguments],
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  errors = [process.communicate(timeout=120)[1] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], '\n'.join(errors)


def test_equal_arrays_are_placed_on_the_devices_of_both():
  run_in_two_processes(PLACE)


def test_batches_from_images_on_devices_are_those_from_memory(tmp_path):
  run_in_two_processes(FEED, str(write_market(tmp_path)))


def test_checkpoints_are_saved_replaced_and_restored_by_both(tmp_path):
  folder = tmp_path / 'checkpoints'
  run_in_two_processes(SAVE_AND_REPLACE, str(folder))
  assert sorted(path.name for path in folder.iterdir()) == ['2', '3']


def test_both_are_refused_in_a_folder_that_is_in_use(tmp_path):
  with run_lock(tmp_path / 'used'):
    run_in_two_processes(LOCK, str(tmp_path / 'used'), str(tmp_path / 'free'))
