"""Errors of float32, and of bfloat16 convolutions, relative to the release's float64 after one iteration of all terms.

docs/precision.md lists the errors and discusses them.
"""

import jax
import numpy as np
import pytest

from tests.parity.iteration import NETWORKS, Run

pytestmark = pytest.mark.long

GOLDEN = 'step_phase2'
# The largest relative error of a loss; and for each network the distance of all gradients, and of all parameters after
# the step, relative to their norm.
BOUNDS = {
  'float32': {
    'losses': 1e-4,
    'gradients': {'gen': 5e-2, 'dis': 1e-5, 'id': 2e-2},
    'parameters': {'gen': 2e-3, 'dis': 5e-7, 'id': 1e-4},
  },
  'bfloat16': {
    'losses': 0.1,
    'gradients': {'dis': 0.4, 'id': 0.8},  # the generator's are noise (docs/precision.md)
    'parameters': {'gen': 2e-2, 'dis': 2e-3, 'id': 2e-2},
  },
}


@pytest.fixture(scope='module', params=BOUNDS)
def run(request, long_parity_dir):
  """The iteration with parameters, inputs and accumulation in float32."""
  run = Run(long_parity_dir, GOLDEN, compute_dtype=request.param)
  run.metrics, run.gradients = run.advance(0)
  assert {leaf.dtype for leaf in jax.tree.leaves(run.gradients)} == {np.dtype('float32')}
  return run


def distance(recipe, ours, expected):
  """Estimates the L2 distance of arrays from fingerprinted ones, relative to their norm.

  The inner product of a difference with a fingerprint's probe is normally distributed, with the difference's norm as
  standard deviation (the goldens' README). The squares of these products, summed over hundreds of arrays, estimate the
  squared distance.
  """
  named = [name for name in ours if expected.get(name)]
  dots = [recipe.fingerprint(name, np.asarray(ours[name], np.float64))[1] - expected[name][1] for name in named]
  squared = sum(dot**2 for dot in dots)
  return float(np.sqrt(squared / sum(expected[name][0] ** 2 for name in named)))


def test_losses(run, ledger):
  losses, bound = run.losses(run.metrics, 0), BOUNDS[run.config.compute_dtype]['losses']
  for name, value in run.golden['losses'].items():
    if value:
      quantity = f'precision {run.config.compute_dtype}: losses'
      ledger.check(quantity, abs(losses[name] - value) / abs(value), bound, name)


@pytest.mark.parametrize('network', NETWORKS)
def test_gradients(run, network, ledger):
  ours, dtype = run.named(network, run.gradients[NETWORKS[network]]), run.config.compute_dtype
  if network not in BOUNDS[dtype]['gradients']:
    pytest.skip(f'{dtype} has no bound for the gradients of {network}, see docs/precision.md')
  error = distance(run.recipe, ours, run.golden['grads'][network])
  ledger.check(f'precision {dtype}: gradients of {network}', error, BOUNDS[dtype]['gradients'][network])


@pytest.mark.parametrize('network', NETWORKS)
def test_parameters_after(run, network, ledger):
  dtype = run.config.compute_dtype
  error = distance(run.recipe, run.params(network), run.golden['params_after'][network])
  ledger.check(f'precision {dtype}: parameters of {network} after', error, BOUNDS[dtype]['parameters'][network])
