import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.loss_monitor import LossMonitor


@pytest.fixture
def checkpoints(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'checkpoints', 1)
  yield checkpoints
  checkpoints.close()


@pytest.fixture
def monitor(checkpoints):
  return LossMonitor(checkpoints, advice='Lower the rate')


def test_means_are_over_steps_and_streams_since_the_last_call(monitor):
  assert not monitor.has_pending and monitor.means() == {}
  monitor.add(0, {'identity': np.array([1.0, 3.0])})
  monitor.add(1, {'identity': np.array([5.0, 7.0]), 'cycle': np.array([2.0, 4.0])})
  assert monitor.has_pending
  assert monitor.means() == {'identity': 4.0, 'cycle': 3.0}
  monitor.add(2, {'identity': np.array([1.0, 1.0])})
  assert monitor.means() == {'identity': 1.0}


def test_term_that_is_not_finite_raises_with_step_and_checkpoint(monitor, checkpoints):
  monitor.add(0, {'identity': np.ones(2), 'cycle': np.ones(2)})
  monitor.add(1, {'identity': np.array([1.0, np.nan]), 'cycle': np.array([np.inf, 1.0])})
  with pytest.raises(
    UserError, match='step 1: cycle, identity not finite; there is no good checkpoint yet .*Lower the rate'
  ):
    monitor.means()
  checkpoints.save(2, {'x': np.zeros(1)}, wait=True)
  monitor.add(2, {'identity': np.array([np.nan, 1.0])})
  # The losses are those of the checkpoint itself, so that it is of no use.
  with pytest.raises(UserError, match=r'step 2: identity not finite; there is no good .*Remove .*/2, .*Lower the rate'):
    monitor.means()
  checkpoints.save(3, {'x': np.zeros(1)}, wait=True)
  monitor.add(4, {'identity': np.array([np.nan, 1.0])})
  with pytest.raises(UserError, match=r'step 4: identity not finite; .* is step 3 in [^;]*checkpoints\. Lower'):
    monitor.means()


def test_loss_before_the_first_update_is_not_blamed_on_the_rate(monitor):
  monitor.add(0, {'identity': np.array([np.nan, 1.0])})
  with pytest.raises(UserError, match='step 0: identity not finite; .*: check the pretrained weights'):
    monitor.means()


def test_state_that_is_not_finite_is_not_to_be_saved(monitor, checkpoints):
  state = {'step': np.int32(2), 'key': jax.random.key(0), 'x': jnp.ones(3, jnp.bfloat16), 'y': np.ones((2, 2))}
  monitor.check_state(2, state)
  checkpoints.save(1, state, wait=True)
  one, two = {'x': state['x'].at[1].set(np.nan)}, {'x': state['x'] / 0, 'y': np.inf}
  for broken, names in ((one, 'x'), (two, 'x and 1 more')):
    with pytest.raises(UserError, match=f'step 1: after its update, {names}.* not finite; the last good .* is step 1'):
      monitor.check_state(2, state | {name: jnp.asarray(value) for name, value in broken.items()})
