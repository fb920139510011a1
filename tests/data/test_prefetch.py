"""The feed from a source to the devices: order, sharding, errors and a clean end."""

import gc
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.errors import UserError
from dgnet_jax.sharding import batch_sharding, make_mesh
from dgnet_jax.types import PixelBatch
from tests.conftest import REPO


@pytest.fixture(scope='module')
def mesh():
  return make_mesh()


def feed_threads():
  return [thread for thread in threading.enumerate() if thread.name == 'device_feed']


@pytest.fixture(autouse=True)
def no_leftover_threads():
  yield
  assert feed_threads() == []


def batch(step, size=8):
  return PixelBatch(
    np.full((size, 2), step, np.uint8), np.zeros((size, 2), np.uint8), np.arange(2 * size).reshape(-1, 2)
  )


class Source:
  """Counts its batches, and records that it was closed."""

  def __init__(self, length=None, error=None):
    self.count, self.closed = 0, False
    self._length, self._error = length, error

  def __iter__(self):
    return self

  def __next__(self):
    if self.count == self._length:
      raise self._error or StopIteration
    self.count += 1
    return batch(self.count - 1)

  def close(self):
    self.closed = True


def test_batches_arrive_in_order_and_sharded(mesh):
  source = Source(length=5)
  batches = list(device_batches(source, mesh))
  assert [int(b.image[0, 0]) for b in batches] == list(range(5)) and source.closed
  for leaf in jax.tree.leaves(batches[0]):
    assert leaf.sharding == batch_sharding(mesh)
  assert batches[0].image.addressable_shards[0].data.shape == (8 // jax.device_count(), 2)
  np.testing.assert_array_equal(batches[0].identity, batch(0).identity)


def test_batches_may_be_any_pytree(mesh):
  images, labels = next(device_batches(iter([(np.zeros((8, 3)), np.arange(8))]), mesh))
  np.testing.assert_array_equal(labels, np.arange(8))
  assert images.shape == (8, 3)


def test_source_error_is_raised_after_the_batches_before_it(mesh):
  batches = device_batches(Source(length=2, error=UserError('x.jpg: unreadable')), mesh)
  assert [int(next(batches).image[0, 0]) for _ in range(2)] == [0, 1]
  with pytest.raises(UserError, match='x.jpg'):
    next(batches)
  with pytest.raises(StopIteration):
    next(batches)


def test_batch_must_be_divisible_by_the_devices():
  with pytest.raises(UserError, match='a batch of 8 is not divisible by 3 devices'):
    next(device_batches(Source(), make_mesh(jax.devices()[:3])))


def test_read_ahead_is_bounded(mesh):
  source = Source()
  batches = device_batches(source, mesh)
  next(batches)
  time.sleep(0.2)
  assert 2 <= source.count <= 3
  batches.close()


@pytest.mark.parametrize('wait', [0, 0.1])
def test_close_ends_the_thread_and_the_source(mesh, wait):
  source = Source()
  batches = device_batches(source, mesh)
  next(batches)
  time.sleep(wait)
  batches.close()
  batches.close()
  assert source.closed and not feed_threads()
  with pytest.raises(StopIteration):
    next(batches)


def test_close_closes_a_generator(mesh):
  ended = []

  def generate():
    try:
      while True:
        yield batch(0)
    finally:
      ended.append(True)

  batches = device_batches(generate(), mesh)
  next(batches)
  batches.close()
  assert ended == [True]


def test_unreferenced_feed_is_collected(mesh):
  source = Source()
  batches = device_batches(source, mesh)
  next(batches)
  del batches
  gc.collect()
  assert source.closed and not feed_threads()


def test_unclosed_feed_does_not_block_program_exit():
  program = (
    'import itertools, numpy as np\n'
    'from dgnet_jax.data.prefetch import device_batches\n'
    'from dgnet_jax.sharding import make_mesh\n'
    'batches = device_batches((np.full(8, i) for i in itertools.count()), make_mesh())\n'
    'print(int(next(batches)[0]), int(next(batches)[0]))\n'
  )
  done = subprocess.run([sys.executable, '-c', program], cwd=REPO, capture_output=True, text=True, timeout=60)
  assert (done.returncode, done.stdout, done.stderr) == (0, '0 1\n', '')
