"""Small training states in checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.types import NetworkState, TrainState

OPTIMIZER = optax.chain(optax.add_decayed_weights(1e-4), optax.adam(1e-3))


def make_state(step=0, width=5):
  params = {'kernel': jnp.arange(12.0 * width).reshape(12, width) + step, 'bias': jnp.full(width, step, jnp.bfloat16)}
  networks = [NetworkState(params, stats, OPTIMIZER.init(params)) for stats in ({}, {}, {'mean': jnp.ones(3)})]
  return TrainState(jnp.int32(step), *networks, jax.random.key(step))


def assert_same(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert a.dtype == b.dtype
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)


def save_steps(folder, steps=(10, 20, 30)):
  """Saves the states of `steps` and returns the folder."""
  checkpoints = Checkpoints(folder, len(steps))
  for step in steps:
    checkpoints.save(step, make_state(step))
  checkpoints.close()
  return folder
