"""Whole iterations against the release, float64: every loss, gradient, parameter, statistic and optimiser slot.

Tolerances follow the goldens' conditioning table: 1e-6 of a loss, 1e-6 of a tensor's norm for parameters. A single step
is far better conditioned than that, so here both are 1e-8, except where release fact 37 says otherwise.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.interop import torch_names
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.objectives import Draws
from dgnet_jax.optimizers import make_optimizers
from dgnet_jax.schedules import active_terms, learning_rates, loss_weights
from dgnet_jax.train_step import update
from dgnet_jax.types import ActiveTerms, NetworkState, Teacher, TrainState
from tests.parity import goldens

LOSS_RTOL = 1e-8
TENSOR_RTOL = 1e-8
NETWORKS = {'gen': 'generator', 'dis': 'discriminator', 'id': 'reid'}
# Our terms f[2] and the release's attributes for stream a and b.
PER_STREAM = {
  'adversarial': 'loss_gen_adv_{}',
  'self_reconstruction': 'loss_gen_recon_x_{}',
  'positive_reconstruction': 'loss_gen_recon_xp_{}',
  'cycle': 'loss_gen_cycrecon_x_{}',
  'structure_code': 'loss_gen_recon_s_{}',
  'appearance_code': 'loss_gen_recon_f_{}',
  'r1': 'reg_{}',
}


def initial_state(folder, config, meta, optimizers, num_identities):
  """TrainState and Teacher as the golden run began."""
  parts = {}
  for theirs, ours in NETWORKS.items():
    variables = goldens.variables_of(folder, theirs, config, meta['master_seed'], num_identities)
    params = jax.tree.map(jnp.asarray, variables['params'])
    parts[ours] = NetworkState(params, variables['batch_stats'], getattr(optimizers, ours).init(params))
  teacher = goldens.variables_of(folder, 'teacher', config, meta['master_seed'], num_identities)
  state = TrainState(step=jnp.asarray(meta['iteration0'], jnp.int32), rng=jax.random.key(0), **parts)
  return state, Teacher(**teacher)


def golden_losses(metrics, weights):
  """Our metrics under the release's names."""
  value = {name: np.asarray(term) for name, term in metrics.items()}
  zero = np.zeros(2)
  losses = {}
  for ours, theirs in PER_STREAM.items():
    for i, stream in enumerate('ab'):
      losses[theirs.format(stream)] = value.get(ours, zero)[i]
  for i, stream in enumerate('ab'):  # the penalty is part of the discriminator's loss (fact 15)
    losses[f'loss_dis_{stream}'] = value['discriminator'][i] + value['r1'][i]
  losses['loss_dis_total'] = (value['discriminator'] + value['r1']).sum() * weights.terms['adversarial']
  losses['loss_gen_total'] = value['total']
  losses['loss_gen_recon_id'] = value['cross_identity'].sum()
  fine_share = weights.terms['fine_identity'] / weights.terms['identity']
  losses['loss_id'] = value['identity'].sum() + fine_share * value.get('fine_identity', zero).sum()
  losses['loss_pid'] = value['positive_identity'].sum()
  teaching = sum(weights.terms[k] * value.get(k, zero).sum() for k in ('primary_teaching', 'fine_teaching'))
  losses['loss_teacher'] = teaching / weights.after['teaching'] if 'primary_teaching' in value else 0.0
  return {name: float(loss) for name, loss in losses.items()}


def check_fingerprints(recipe, actual, expected, *, rtol, atol=0.0):
  """Every expected fingerprint [norm, dot] against ours, relative to its norm."""
  checked = 0
  for name, pair in expected.items():
    if name not in actual or pair is None:
      continue
    bound = rtol * pair[0] + atol
    assert np.allclose(recipe.fingerprint(name, actual[name]), pair, rtol=0, atol=bound), (name, pair)
    checked += 1
  return checked


_COMPILED = {}


def compiled_update(config, num_identities):
  """The jitted iteration; goldens that differ only in seeds and draws share one compilation."""
  key = config.to_json(sort_keys=True), num_identities
  if key not in _COMPILED:
    networks, teacher_network = make_networks(config, num_identities), make_teacher_network(config, num_identities)
    step = functools.partial(update, networks, teacher_network, make_optimizers(config), config)
    _COMPILED[key] = jax.jit(step, static_argnums=4)
  return _COMPILED[key]


class Run:
  """One golden iteration, run by us."""

  def __init__(self, folder, name):
    self.golden = goldens.load_json(folder, name)
    self.recipe = goldens.load_recipe(folder)
    meta = self.meta = self.golden['meta']
    classes = meta['hyperparameters']['ID_class']
    self.config = goldens.config_of(meta)
    self.step = meta['iteration0']
    state, teacher = initial_state(folder, self.config, meta, make_optimizers(self.config), classes)
    batch = goldens.pair_batch(self.recipe, meta, 0)
    draws = Draws(jnp.asarray(meta['rand'][0] <= self.config.structure_encoder_update_prob))
    step = compiled_update(self.config, classes)
    results = step(state, teacher, batch, draws, active_terms(self.config, self.step))
    self.after, self.metrics, self.gradients = results

  def ours(self, network, tree, collection='params'):
    entries = [e for e in goldens.ENTRIES[network](self.config) if e.path[0] == collection]
    return torch_names.to_torch({collection: jax.device_get(tree)}, entries)


@pytest.fixture(scope='module', params=['step_phase1', 'step_phase2', 'step_phase3'])
def run(request, parity_dir):
  with jax.enable_x64(True):
    return Run(parity_dir, request.param)


@pytest.mark.usefixtures('float64')
class TestStep:
  def test_every_named_loss(self, run):
    losses = golden_losses(run.metrics, loss_weights(run.config, run.step))
    expected = {k: v for k, v in run.golden['losses'].items() if 'vgg' not in k}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
      assert losses[name] == pytest.approx(value, rel=LOSS_RTOL, abs=1e-300), name

  def test_weights_and_rates(self, run):
    weights = loss_weights(run.config, run.step)
    for ours, theirs in (
      ('structure_code', 'recon_s_w'),
      ('appearance_code', 'recon_f_w'),
      ('cycle', 'recon_x_cyc_w'),
      ('teaching', 'teacher_w'),
    ):
      assert float(weights.before[ours]) == pytest.approx(run.golden['weights_before'][theirs])
      assert float(weights.after[ours]) == pytest.approx(run.golden['weights_after'][theirs])
    rates = learning_rates(run.config, run.step)
    multiplier = run.config.optimizer.head_multiplier
    assert float(rates['generator']) == pytest.approx(run.golden['lr']['gen'][0])
    assert float(rates['discriminator']) == pytest.approx(run.golden['lr']['dis'][0])
    assert [float(rates['reid']) * m for m in (1, multiplier, multiplier)] == pytest.approx(run.golden['lr']['id'])

  @pytest.mark.parametrize('network', NETWORKS)
  def test_every_gradient(self, run, network):
    expected = run.golden['grads'][network]
    ours = run.ours(network, run.gradients[NETWORKS[network]])
    # A bias in front of a normalisation has a zero gradient, which rounding leaves at 1e-13 (fact 37).
    largest = max(pair[0] for pair in expected.values() if pair)
    checked = check_fingerprints(run.recipe, ours, expected, rtol=TENSOR_RTOL, atol=1e-13 * largest)
    assert checked == len(ours) == sum(pair is not None for pair in expected.values())

  @pytest.mark.parametrize('network', NETWORKS)
  def test_every_parameter_after(self, run, network):
    expected = run.golden['params_after'][network]
    ours = run.ours(network, getattr(run.after, NETWORKS[network]).params)
    # Adam turns a zero gradient's rounding into a step of up to its rate (fact 37); our own bound is a hundredth.
    rate = float(learning_rates(run.config, run.step)['generator'])
    checked = check_fingerprints(run.recipe, ours, expected, rtol=TENSOR_RTOL, atol=1e-2 * rate)
    assert checked == len(ours)
    assert set(expected) - set(ours) <= {'model.fc.weight', 'model.fc.bias'}

  def test_running_statistics_after(self, run):
    expected = {k: v for k, v in run.golden['buffers_after']['id'].items() if 'num_batches' not in k}
    ours = run.ours('id', run.after.reid.batch_stats, 'batch_stats')
    assert check_fingerprints(run.recipe, ours, expected, rtol=TENSOR_RTOL) == len(ours) == len(expected)

  def test_compiled_terms_match_phase(self, run):
    weights = run.golden['weights_before']
    expected = ActiveTerms(
      codes=weights['recon_s_w'] > 0, cycle=weights['recon_x_cyc_w'] > 0, teaching=weights['teacher_w'] > 0
    )
    assert active_terms(run.config, run.step) == expected
