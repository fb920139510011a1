"""Training iterations against the release, in float64: losses, gradients, parameters, statistics and optimizer slots.

One iteration of every phase, then five consecutive ones through ramps and learning-rate drops. Tolerances follow the
goldens' conditioning table: 1e-6 of a loss, and 1e-6 of a tensor's norm for parameters. A single step is much better
conditioned, so there both are 1e-8, except where release fact 37 says otherwise. Rounding errors grow from step to
step, mostly through the heads' BatchNorm over four similar samples; at the released learning rates the run is chaotic
from the third iteration on.

The tests are in one file because they share two compilations.
"""

import jax
import numpy as np
import pytest

from dgnet_jax.training.schedules import active_terms, learning_rates
from dgnet_jax.types import ActiveTerms
from tests.parity.iteration import NETWORKS, Run, check_fingerprints, check_losses, check_weights_and_rates

pytestmark = pytest.mark.long

STEP_RTOL = 1e-8
TRAINING_RTOL = 1e-6
SLOT_RTOL = {'gen': 2e-2, 'dis': 1e-6, 'id': 1e-3}
HOT_LOSS_RTOL = (1e-8, 1e-6, 1e-3)  # of each iteration, from the table; later ones cannot be compared


@pytest.fixture(scope='module', params=['step_phase1', 'step_phase2', 'step_phase3'])
def run(request, parity_dir):
  with jax.enable_x64(True):
    run = Run(parity_dir, request.param)
    run.metrics, run.gradients = run.advance(0)
    run.step = run.meta['iteration0']
    return run


@pytest.mark.usefixtures('x64')
class TestStep:
  def test_losses(self, run, ledger):
    losses = run.losses(run.metrics, 0)
    check_losses(ledger, f'{run.name}: losses', losses, run.golden['losses'], STEP_RTOL)

  def test_weights_and_rates(self, run):
    check_weights_and_rates(run.config, run.step, run.golden)

  @pytest.mark.parametrize('network', NETWORKS)
  def test_gradients(self, run, network, ledger):
    expected = run.golden['grads'][network]
    ours = run.named(network, run.gradients[NETWORKS[network]])
    # A bias in front of a normalisation has a zero gradient, of which rounding leaves 1e-13 (release fact 37).
    largest = max(pair[0] for pair in expected.values() if pair)
    noise = 1e-13 / STEP_RTOL * largest
    quantity = f'{run.name}: gradients of {network}'
    checked = check_fingerprints(ledger, quantity, run.recipe.fingerprint, ours, expected, rtol=STEP_RTOL, noise=noise)
    assert checked == len(ours) == sum(pair is not None for pair in expected.values())

  @pytest.mark.parametrize('network', NETWORKS)
  def test_parameters_after(self, run, network, ledger):
    expected = run.golden['params_after'][network]
    ours = run.params(network)
    # Adam turns the rounding error of a zero gradient into a step of up to its rate (release fact 37); we allow 1 %.
    rate = float(learning_rates(run.config, run.step)['generator'])
    noise = 1e-2 * rate / STEP_RTOL
    quantity = f'{run.name}: parameters of {network} after'
    checked = check_fingerprints(ledger, quantity, run.recipe.fingerprint, ours, expected, rtol=STEP_RTOL, noise=noise)
    assert checked == len(ours)
    assert set(expected) - set(ours) <= {'model.fc.weight', 'model.fc.bias'}

  def test_running_statistics_after(self, run, ledger):
    expected = {k: v for k, v in run.golden['buffers_after']['id'].items() if 'num_batches' not in k}
    ours = run.running_statistics()
    quantity = f'{run.name}: BatchNorm statistics of id after'
    checked = check_fingerprints(ledger, quantity, run.recipe.fingerprint, ours, expected, rtol=STEP_RTOL)
    assert checked == len(ours) == len(expected)

  def test_active_terms_match_the_phase(self, run):
    weights = run.golden['weights_before']
    expected = ActiveTerms(
      codes=weights['recon_s_w'] > 0, cycle=weights['recon_x_cyc_w'] > 0, teaching=weights['teacher_w'] > 0
    )
    assert active_terms(run.config.ramps, run.step) == expected


def advance_all(folder, name, count=None):
  """A run after `count` iterations (default: all), with the losses of each."""
  with jax.enable_x64(True):
    run = Run(folder, name)
    run.steps = run.golden['steps'][:count]
    run.history = [run.losses(run.advance(number)[0], number) for number in range(len(run.steps))]
  return run


@pytest.fixture(scope='module')
def training(long_parity_dir):
  return advance_all(long_parity_dir, 'train5')


@pytest.mark.usefixtures('x64')
class TestTraining:
  def test_losses_of_every_iteration(self, training, ledger):
    for number, (losses, golden) in enumerate(zip(training.history, training.steps, strict=True)):
      check_losses(ledger, f'train5: losses of iteration {number}', losses, golden['losses'], TRAINING_RTOL)

  def test_weights_and_rates_of_every_iteration(self, training):
    for number, golden in enumerate(training.steps):
      check_weights_and_rates(training.config, training.meta['iteration0'] + number, golden)

  @pytest.mark.parametrize('network', NETWORKS)
  def test_parameters_at_the_end(self, training, network, ledger):
    ours = training.params(network)
    expected, quantity = training.golden['params_after'][network], f'train5: parameters of {network} at the end'
    checked = check_fingerprints(ledger, quantity, training.recipe.fingerprint, ours, expected, rtol=TRAINING_RTOL)
    assert checked == len(ours)

  def test_running_statistics_at_the_end(self, training, ledger):
    ours = training.running_statistics()
    expected, quantity = training.golden['buffers_after']['id'], 'train5: BatchNorm statistics of id at the end'
    checked = check_fingerprints(ledger, quantity, training.recipe.fingerprint, ours, expected, rtol=TRAINING_RTOL)
    assert checked == len(ours)

  @pytest.mark.parametrize('network', NETWORKS)
  def test_optimizer_slots_at_the_end(self, training, network, ledger):
    golden = training.golden['optim_after'][network]
    for slot, ours in training.slots(network).items():
      expected = {name: values[slot] for name, values in golden.items() if values}
      # Zero gradients leave rounding errors (release fact 37).
      largest = max(pair[0] for pair in expected.values())
      quantity, rtol = f'train5: {slot} of {network} at the end', SLOT_RTOL[network]
      checked = check_fingerprints(
        ledger, quantity, training.recipe.fingerprint, ours, expected, rtol=rtol, noise=1e-12 / rtol * largest
      )
      assert checked == len(ours), slot

  def test_every_parameter_is_updated_in_every_step(self, training):
    for network in ('gen', 'dis'):
      counts = {values['step'] for values in training.golden['optim_after'][network].values()}
      assert counts == {float(len(training.steps))}
      state = getattr(training.state, NETWORKS[network]).opt_state
      assert {int(x) for x in jax.tree.leaves(state) if np.ndim(x) == 0} == {len(training.steps)}


@pytest.mark.usefixtures('x64')
def test_losses_at_the_released_rates(long_parity_dir, ledger):
  run = advance_all(long_parity_dir, 'train5_hot', len(HOT_LOSS_RTOL))
  for number, (losses, golden, rtol) in enumerate(zip(run.history, run.steps, HOT_LOSS_RTOL, strict=True)):
    check_losses(ledger, f'train5_hot: losses of iteration {number}', losses, golden['losses'], rtol)
