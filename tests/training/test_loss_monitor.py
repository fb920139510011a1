import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.loss_monitor import LossMonitor
from dgnet_jax.training.non_finite import NonFinite

STATE = {'generator': {'params': np.ones(2)}, 'reid': {'params': np.ones(2), 'batch_stats': np.ones(2)}}


@pytest.fixture
def checkpoints(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'checkpoints', 1)
  yield checkpoints
  checkpoints.close()


@pytest.fixture
def monitor(checkpoints):
  return LossMonitor(checkpoints, advice='Lower the rate')


def test_means_are_over_steps_and_streams_since_the_last_call(monitor):
  assert not monitor.has_pending and monitor.means(STATE) == {}
  monitor.add(0, {'identity': np.array([1.0, 3.0])})
  monitor.add(1, {'identity': np.array([5.0, 7.0]), 'cycle': np.array([2.0, 4.0])})
  assert monitor.has_pending
  assert monitor.means(STATE) == {'identity': 4.0, 'cycle': 3.0}
  monitor.add(2, {'identity': np.array([1.0, 1.0])})
  assert monitor.means(STATE) == {'identity': 1.0}


def test_term_that_is_not_finite_raises_with_step_and_checkpoint(monitor, checkpoints):
  monitor.add(0, {'identity': np.ones(2), 'cycle': np.ones(2)})
  monitor.add(1, {'identity': np.array([1.0, np.nan]), 'cycle': np.array([np.inf, 1.0])})
  with pytest.raises(
    UserError, match='step 1: cycle, identity not finite; there is no good checkpoint yet .*Lower the rate'
  ):
    monitor.means(STATE)
  checkpoints.save(2, {'x': np.zeros(1)}, wait=True)
  monitor.add(2, {'identity': np.array([np.nan, 1.0])})
  # The losses are those of the checkpoint itself, so that it is of no use.
  with pytest.raises(UserError, match=r'step 2: identity not finite; there is no good .*Remove .*/2, .*Lower the rate'):
    monitor.means(STATE)
  checkpoints.save(3, {'x': np.zeros(1)}, wait=True)
  monitor.add(4, {'identity': np.array([np.nan, 1.0])})
  with pytest.raises(UserError, match=r'step 4: identity not finite; .* is step 3 in [^;]*checkpoints\. Lower'):
    monitor.means(STATE)


def test_loss_before_the_first_update_is_not_blamed_on_the_rate(monitor):
  monitor.add(0, {'identity': np.array([np.nan, 1.0])})
  with pytest.raises(UserError, match='step 0: identity not finite; .*: check the pretrained weights'):
    monitor.means(STATE)


def test_state_that_is_not_finite_is_not_to_be_saved(monitor, checkpoints):
  state = {'step': np.int32(2), 'key': jax.random.key(0), 'x': jnp.ones(3, jnp.bfloat16), 'y': np.ones((2, 2))}
  monitor.check_state(2, state)
  checkpoints.save(1, state, wait=True)
  one, two = {'x': state['x'].at[1].set(np.nan)}, {'x': state['x'] / 0, 'y': np.inf}
  for broken, names in ((one, 'x'), (two, 'x and 1 more')):
    with pytest.raises(UserError, match=f'step 1: after its update, {names}.* not finite; the last good .* is step 1'):
      monitor.check_state(2, state | {name: jnp.asarray(value) for name, value in broken.items()})


def test_state_that_is_not_finite_any_more_is_named_with_the_term(monitor):
  monitor.add(3, {'identity': np.array([1.0, np.nan])})
  monitor.add(4, {'identity': np.array([np.nan, np.nan])})
  reid = {'params': np.full(2, np.nan), 'batch_stats': np.full(2, np.inf)}
  with pytest.raises(
    UserError, match=r'step 3: identity not finite, and after step 4 the state of reid \(2 arrays\); '
  ):
    monitor.means(STATE | {'reid': reid})


def test_report_says_where_the_step_can_be_reached_from(checkpoints):
  found = []
  monitor = LossMonitor(checkpoints, advice='Lower the rate', reporter=lambda step: found.append(step) or 'See there.')
  checkpoints.save(2, {'x': np.zeros(1)}, wait=True)
  monitor.add(2, {'identity': np.array([np.nan, 1.0])})
  with pytest.raises(UserError, match=r'run the same command again\. See there\.$'):
    monitor.means(STATE)
  with pytest.raises(UserError):
    monitor.check_state(2, STATE | {'generator': {'params': np.full(2, np.nan)}})
  # The step after checkpoint 2 starts from it, however bad its losses are; checkpoint 2 is after step 1.
  assert found == [NonFinite(2, ('identity',), (), 3, 2), NonFinite(1, (), ('generator',), 2, None)]


def skipped(*networks, identity=np.nan):
  flags = {f'skipped/{name}': np.bool_(name in networks) for name in ('generator', 'discriminator', 'reid')}
  return {'identity': np.array([identity, 1.0]), 'skipped': np.bool_(bool(networks) or np.isnan(identity))} | flags


def test_skipped_updates_are_counted_and_not_in_the_means(checkpoints, lines):
  monitor = LossMonitor(checkpoints, advice='', max_skipped=3, skipped=1)
  for step, metrics in enumerate((skipped(identity=1.0), skipped(), skipped('reid', identity=3.0))):
    monitor.add(step, metrics)
  assert monitor.means(STATE) == {'identity': 1.0, 'skipped': 2.0}
  assert lines == [
    'step 1: identity not finite; its update is skipped, 2 of at most 3',
    'step 2: gradient or update of reid not finite; its update is skipped, 3 of at most 3',
  ]
  monitor.add(3, skipped(identity=1.0))
  assert monitor.means(STATE) == {'identity': 1.0, 'skipped': 0.0}
  monitor.add(4, skipped('generator', 'reid'))
  problem = 'step 4: identity, gradient or update of generator, gradient or update of reid not finite, and '
  with pytest.raises(UserError, match=f'{problem}optimizer.skip_non_finite=3 updates of the run have been skipped; '):
    monitor.means(STATE)


def test_report_of_skipped_updates_alone_has_no_means(checkpoints):
  monitor = LossMonitor(checkpoints, advice='', max_skipped=1)
  monitor.add(0, skipped())
  assert monitor.means(STATE) == {'skipped': 1.0}
