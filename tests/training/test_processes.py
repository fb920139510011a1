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

# The first process writes alone: in a folder that the other one does not have.
WRITE_ALONE = """
import pathlib
from dgnet_jax.sharding import batch_sharding
from dgnet_jax.training.checkpoints import Checkpoints
folder = pathlib.Path(sys.argv[3 + jax.process_index()])
overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
numbers = np.arange(200_000, dtype=np.float32)
state = {
  'split': device_put_global(numbers, batch_sharding(mesh)),
  'whole': device_put_global(numbers + 1, replicated(mesh)),
}
with Checkpoints(folder, 3) as checkpoints:
  checkpoints.save(1, state)
  overwritten = overwrite(state)
  checkpoints.save(2, overwritten, wait=True)
  restored = checkpoints.restore(overwritten, 1)
assert restored['split'].sharding == batch_sharding(mesh)
for name, expected in (('split', numbers), ('whole', numbers + 1)):
  for shard in restored[name].addressable_shards:
    np.testing.assert_array_equal(shard.data, expected[shard.index])
"""

# The newest checkpoint and the best one, also after a resumption.
KEEP_BEST = """
from dgnet_jax.training.checkpoints import Checkpoints
for ranked in ([(1, 1), (2, 1), (3, 3), (4, 3)], [(5, 3), (6, 3)]):
  with Checkpoints(sys.argv[3], 1) as checkpoints:
    checkpoints.keep_best(checkpoints.latest_step() and 3)
    for step, best in ranked:
      checkpoints.save(step, tree(step))
      checkpoints.keep_best(best)
  with Checkpoints(sys.argv[3]) as checkpoints:
    assert checkpoints.steps() == [3, step], checkpoints.steps()
    assert int(checkpoints.restore(tree(0), 3)['step']) == 3
"""

# Each process has a half of a classifier of five identities, with padding.
SPLIT = """
import pathlib
from dgnet_jax.training.checkpoint_arrays import not_finite
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.placement import Placement
placement = Placement(make_mesh(model_devices=2), 5)
kernel = np.arange(15.0, dtype=np.float32).reshape(3, 5)
state = {'head': {'classifier': {'kernel': kernel, 'bias': kernel[0]}}, 'whole': kernel}
def check(placed):
  assert placed['whole'].sharding == replicated(placement.mesh)
  part = placed['head']['classifier']['kernel'].addressable_data(0)
  padded = np.pad(kernel, [(0, 0), (0, 1)])
  np.testing.assert_array_equal(part, padded[:, 3 * jax.process_index():][:, :3])
  jax.tree.map(np.testing.assert_array_equal, placement.whole(placed), state)
placed = placement.put(state)
check(placed)
with Checkpoints(sys.argv[3], 1) as checkpoints:
  checkpoints.save(1, placement.whole(placed), wait=True)
  assert checkpoints.shapes()['head/classifier/kernel'] == (3, 5)
  check(placement.put(checkpoints.restore(placement.template(state))))
kernel[1, 4] = np.nan  # in the second part
assert not_finite(placement.put({'classifier': {'kernel': kernel}})) == ['classifier/kernel']
"""

# A limit on the size of files stands in for a full disk, for the process that writes.
FULL_DISK = """
import resource
import pytest
from dgnet_jax.errors import MachineError
from dgnet_jax.training.checkpoints import Checkpoints
first = jax.process_index() == 0
large = device_put_global({'x': np.random.default_rng(0).normal(size=100_000)}, replicated(mesh))
with pytest.raises(MachineError, match='cannot be written .*the checkpoint of step 2 is complete'):
  with Checkpoints(sys.argv[3], 3) as checkpoints:
    checkpoints.save(2, tree(2), wait=True)
    if first:
      resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    checkpoints.save(4, large)
with pytest.raises(MachineError, match='^process 0: ' if not first else ''):
  with Checkpoints(sys.argv[3], 3) as checkpoints:
    checkpoints.save(4, large, wait=True)
"""

# The other process is gone while a checkpoint is written, which is complete none the less.
LOST = """
import os
import time
from dgnet_jax.training.checkpoints import Checkpoints
try:
  with Checkpoints(sys.argv[3], 3) as checkpoints:
    checkpoints.save(2, tree(2))
    if jax.process_index():
      os._exit(0)
    time.sleep(1)
    raise RuntimeError('a collective operation fails')
except RuntimeError:
  assert (checkpoints.folder / '2').is_dir()
  os._exit(0)
"""

# What one process cannot do, none does.
AGREE = """
import pathlib
import pytest
from dgnet_jax.errors import NoMatches, UserError
from dgnet_jax.training import agreement, shared_folder
first = jax.process_index() == 0
assert agreement.from_first_process(lambda: {'seen by': jax.process_index(), 'count': np.int32(3)}) == {
  'seen by': 0, 'count': 3
}
def refuse():
  raise NoMatches('nothing there')
with pytest.raises(NoMatches, match='nothing there' if first else 'process 0: nothing there'):
  agreement.from_first_process(refuse)
with pytest.raises(UserError if first else ValueError, match='^process 1: ValueError' if first else 'invalid literal'):
  agreement.in_all_processes(lambda: None if first else int('no number'))
assert agreement.in_all_processes(jax.process_index) == jax.process_index()
# Every bit arrives, also of numbers that a sum would change; longer than one message.
agreement.CHUNK = 64
arrays = {'a': np.float32([-0.0, np.nan, np.inf]), 'b': np.arange(40), 'c': np.zeros((0, 2)), 'd': np.uint32(7)}
received = agreement.arrays_from_first_process(lambda: arrays, arrays)
for name, array in arrays.items():
  assert received[name].dtype == array.dtype and received[name].tobytes() == np.asarray(array).tobytes()
for count in (1, 2, 5):
  rows = np.arange(3.0 * count, dtype=np.float32).reshape(count, 3)
  np.testing.assert_array_equal(agreement.gather_rows(rows[agreement.share_of(count)], count), rows)
# Within a call, nothing waits for the other process.
assert agreement.from_first_process(lambda: agreement.in_all_processes(lambda: agreement.is_alone()))
assert not agreement.is_alone()
shared_folder.PATIENCE = 1
shared_folder.check_shared(pathlib.Path(sys.argv[3]))
with pytest.raises(UserError, match='^' if not first else '^process 1: ') as error:
  shared_folder.check_shared(pathlib.Path(sys.argv[3 if first else 4]))
assert 'not the folder that the first process sees' in str(error.value)
"""

# What the first process cannot open, neither trains without.
REFUSED_SINK = """
import pathlib
import pytest
from dgnet_jax.errors import UserError
from dgnet_jax.training.metrics import MetricWriter
def refuse(folder, step):
  raise UserError('no such project')
with pytest.raises(UserError, match='no such project' if jax.process_index() == 0 else 'process 0: no such project'):
  MetricWriter(pathlib.Path(sys.argv[3]), 0, refuse)
"""

# The first process finds the newest checkpoint damaged; the other one sees no checkpoint at all.
FALL_BACK = """
import pathlib
import warnings
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.checkpoint_reader import CheckpointReader
folder = pathlib.Path(sys.argv[3])
with Checkpoints(folder, 3) as checkpoints:
  for step in (2, 4):
    checkpoints.save(step, tree(step), wait=True)
if jax.process_index() == 0:
  for path in (folder / '4').rglob('*'):
    if path.is_file() and '/d/' in str(path):
      path.write_bytes(path.read_bytes()[::-1])
else:
  CheckpointReader.steps = lambda self: []
warnings.simplefilter('ignore')
with Checkpoints(folder, 3) as checkpoints:
  assert checkpoints.latest_step() == 4
  assert int(checkpoints.restore(tree(0))['step']) == 2
  assert checkpoints.latest_step() == 2
  checkpoints.save(4, tree(4), wait=True)
  assert int(checkpoints.restore(tree(0))['step']) == 4
"""

# Each process gets its rows, and both the same arrays whether the images are on the devices or in memory.
FEED = """
import contextlib
from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.config.network_schema import TeacherConfig
from dgnet_jax.config.schema import Config
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
# What is on the devices already stays there if they also split classifiers.
splitting = make_mesh(model_devices=2)
with contextlib.closing(device_batches(iter([batches['device'][0]]), splitting)) as fed:
  moved = next(fed)
assert moved.image.sharding == batch_sharding(splitting)
np.testing.assert_array_equal(local_rows(moved.image), local_rows(batches['device'][0].image))
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
  try:
    errors = [process.communicate(timeout=120)[1] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], '\n'.join(errors)


def test_equal_arrays_are_placed_on_the_devices_of_both():
  run_in_two_processes(PLACE)


def test_batches_from_images_on_devices_are_those_from_memory(tmp_path):
  run_in_two_processes(FEED, str(write_market(tmp_path)))


def test_checkpoints_are_saved_replaced_and_restored_by_both(tmp_path):
  folder = tmp_path / 'checkpoints'
  run_in_two_processes(SAVE_AND_REPLACE, str(folder))
  assert sorted(path.name for path in folder.iterdir()) == ['2', '3']


def test_only_the_first_writes_and_split_arrays_are_joined(tmp_path):
  run_in_two_processes(WRITE_ALONE, str(tmp_path / 'first'), str(tmp_path / 'other'))
  assert sorted(path.name for path in (tmp_path / 'first').iterdir()) == ['1', '2']
  assert not (tmp_path / 'other').exists()


def test_the_best_checkpoint_is_kept_by_both(tmp_path):
  run_in_two_processes(KEEP_BEST, str(tmp_path))
  assert sorted(path.name for path in tmp_path.iterdir()) == ['3', '6']


def test_classifiers_split_over_processes_are_joined_in_checkpoints(tmp_path):
  run_in_two_processes(SPLIT, str(tmp_path))


def test_full_disk_is_an_error_of_both(tmp_path):
  run_in_two_processes(FULL_DISK, str(tmp_path))


def test_checkpoint_is_completed_when_the_other_process_is_lost(tmp_path):
  run_in_two_processes(LOST, str(tmp_path))


def test_both_agree_and_fail_together(tmp_path):
  for name in ('one', 'other'):
    (tmp_path / name).mkdir()
  run_in_two_processes(AGREE, str(tmp_path / 'one'), str(tmp_path / 'other'))
  assert not list(tmp_path.glob('*/*'))


def test_a_sink_that_refuses_is_an_error_of_both(tmp_path):
  run_in_two_processes(REFUSED_SINK, str(tmp_path))


def test_first_process_decides_which_checkpoint_is_restored(tmp_path):
  run_in_two_processes(FALL_BACK, str(tmp_path))


def test_both_are_refused_in_a_folder_that_is_in_use(tmp_path):
  with run_lock(tmp_path / 'used'):
    run_in_two_processes(LOCK, str(tmp_path / 'used'), str(tmp_path / 'free'))
