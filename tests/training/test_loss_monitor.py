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
    UserError, match='step 1: cycle, identity not finite; there is no checkpoint yet .*Lower the rate'
  ):
    monitor.means()
  checkpoints.save(2, {'x': np.zeros(1)}, wait=True)
  monitor.add(2, {'identity': np.array([np.nan, 1.0])})
  with pytest.raises(UserError, match='step 2: identity not finite; the last good checkpoint is step 2'):
    monitor.means()
