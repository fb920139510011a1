"""Whole iterations against the release, float64: every loss, gradient, parameter and statistic.

Tolerances follow the goldens' conditioning table: 1e-6 of a loss, 1e-6 of a tensor's norm for parameters. A single step
is far better conditioned than that, so here both are 1e-8, except where release fact 37 says otherwise.
"""

import jax
import pytest

from dgnet_jax.schedules import active_terms, learning_rates
from dgnet_jax.types import ActiveTerms
from tests.parity.iteration import NETWORKS, Run, check_fingerprints, check_losses, check_weights_and_rates

LOSS_RTOL = 1e-8
TENSOR_RTOL = 1e-8


@pytest.fixture(scope='module', params=['step_phase1', 'step_phase2', 'step_phase3'])
def run(request, parity_dir):
  with jax.enable_x64(True):
    run = Run(parity_dir, request.param)
    run.metrics, run.gradients = run.advance(0)
    run.step = run.meta['iteration0']
    return run


@pytest.mark.usefixtures('float64')
class TestStep:
  def test_every_named_loss(self, run, ledger):
    losses = run.losses(run.metrics, 0)
    check_losses(ledger, f'{run.name}: losses', losses, run.golden['losses'], LOSS_RTOL)

  def test_weights_and_rates(self, run):
    check_weights_and_rates(run.config, run.step, run.golden)

  @pytest.mark.parametrize('network', NETWORKS)
  def test_every_gradient(self, run, network, ledger):
    expected = run.golden['grads'][network]
    ours = run.ours(network, run.gradients[NETWORKS[network]])
    # A bias in front of a normalisation has a zero gradient, which rounding leaves at 1e-13 (fact 37).
    largest = max(pair[0] for pair in expected.values() if pair)
    noise = 1e-13 / TENSOR_RTOL * largest
    what = f'{run.name}: gradients of {network}'
    checked = check_fingerprints(ledger, what, run.recipe, ours, expected, rtol=TENSOR_RTOL, noise=noise)
    assert checked == len(ours) == sum(pair is not None for pair in expected.values())

  @pytest.mark.parametrize('network', NETWORKS)
  def test_every_parameter_after(self, run, network, ledger):
    expected = run.golden['params_after'][network]
    ours = run.params(network)
    # Adam turns a zero gradient's rounding into a step of up to its rate (fact 37); our own bound is a hundredth.
    rate = float(learning_rates(run.config, run.step)['generator'])
    noise = 1e-2 * rate / TENSOR_RTOL
    what = f'{run.name}: parameters of {network} after'
    checked = check_fingerprints(ledger, what, run.recipe, ours, expected, rtol=TENSOR_RTOL, noise=noise)
    assert checked == len(ours)
    assert set(expected) - set(ours) <= {'model.fc.weight', 'model.fc.bias'}

  def test_running_statistics_after(self, run, ledger):
    expected = {k: v for k, v in run.golden['buffers_after']['id'].items() if 'num_batches' not in k}
    ours = run.running_statistics()
    what = f'{run.name}: BatchNorm statistics of id after'
    checked = check_fingerprints(ledger, what, run.recipe, ours, expected, rtol=TENSOR_RTOL)
    assert checked == len(ours) == len(expected)

  def test_compiled_terms_match_phase(self, run):
    weights = run.golden['weights_before']
    expected = ActiveTerms(
      codes=weights['recon_s_w'] > 0, cycle=weights['recon_x_cyc_w'] > 0, teaching=weights['teacher_w'] > 0
    )
    assert active_terms(run.config, run.step) == expected
