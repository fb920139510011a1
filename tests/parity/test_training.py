"""Five consecutive iterations against the release, float64, through ramps and learning-rate steps.

Tolerances are those of the goldens' conditioning table: rounding grows from step to step, most of all through the
heads' BatchNorm over four similar samples. At the release's own learning rates the run is chaotic from the third
iteration on.
"""

import jax
import numpy as np
import pytest

from tests.parity.iteration import NETWORKS, Run, check_fingerprints, check_losses, check_weights_and_rates

LOSS_RTOL = 1e-6
TENSOR_RTOL = 1e-6
SLOT_RTOL = {'gen': 2e-2, 'dis': 1e-6, 'id': 1e-3}
HOT_LOSS_RTOL = (1e-8, 1e-6, 1e-3)  # what the table allows of each iteration; later ones are not comparable


def advance_all(folder, name, count=None):
  """The run after `count` iterations (all by default), with the losses of each."""
  with jax.enable_x64(True):
    run = Run(folder, name)
    run.steps = run.golden['steps'][:count]
    run.history = [run.losses(run.advance(number)[0], number) for number in range(len(run.steps))]
  return run


@pytest.fixture(scope='module')
def run(parity_dir):
  return advance_all(parity_dir, 'train5')


@pytest.mark.usefixtures('float64')
class TestTraining:
  def test_losses_of_every_iteration(self, run, ledger):
    for number, (losses, golden) in enumerate(zip(run.history, run.steps, strict=True)):
      check_losses(ledger, f'train5: losses of iteration {number}', losses, golden['losses'], LOSS_RTOL)

  def test_weights_and_rates_of_every_iteration(self, run):
    for number, golden in enumerate(run.steps):
      check_weights_and_rates(run.config, run.meta['iteration0'] + number, golden)

  @pytest.mark.parametrize('network', NETWORKS)
  def test_parameters_at_the_end(self, run, network, ledger):
    ours = run.params(network)
    expected, what = run.golden['params_after'][network], f'train5: parameters of {network} at the end'
    checked = check_fingerprints(ledger, what, run.recipe, ours, expected, rtol=TENSOR_RTOL)
    assert checked == len(ours)

  def test_running_statistics_at_the_end(self, run, ledger):
    ours = run.running_statistics()
    expected, what = run.golden['buffers_after']['id'], 'train5: BatchNorm statistics of id at the end'
    checked = check_fingerprints(ledger, what, run.recipe, ours, expected, rtol=TENSOR_RTOL)
    assert checked == len(ours)

  @pytest.mark.parametrize('network', NETWORKS)
  def test_optimizer_slots_at_the_end(self, run, network, ledger):
    golden = run.golden['optim_after'][network]
    for slot, ours in run.slots(network).items():
      expected = {name: values[slot] for name, values in golden.items() if values}
      # What is left of a zero gradient is rounding (fact 37).
      largest = max(pair[0] for pair in expected.values())
      what, rtol = f'train5: {slot} of {network} at the end', SLOT_RTOL[network]
      checked = check_fingerprints(ledger, what, run.recipe, ours, expected, rtol=rtol, noise=1e-12 / rtol * largest)
      assert checked == len(ours), slot

  def test_every_parameter_was_stepped_each_time(self, run):
    for network in ('gen', 'dis'):
      counts = {values['step'] for values in run.golden['optim_after'][network].values()}
      assert counts == {float(len(run.steps))}
      state = getattr(run.after, NETWORKS[network]).opt_state
      assert {int(x) for x in jax.tree.leaves(state) if np.ndim(x) == 0} == {len(run.steps)}


@pytest.mark.usefixtures('float64')
def test_losses_at_the_released_rates(parity_dir, ledger):
  run = advance_all(parity_dir, 'train5_hot', len(HOT_LOSS_RTOL))
  for number, (losses, golden, rtol) in enumerate(zip(run.history, run.steps, HOT_LOSS_RTOL, strict=True)):
    check_losses(ledger, f'train5_hot: losses of iteration {number}', losses, golden['losses'], rtol)
