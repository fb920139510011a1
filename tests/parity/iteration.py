"""Runs the goldens' iterations with our jitted step; results have the release's names."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.config.validation import leaves
from dgnet_jax.interop import torch_names
from dgnet_jax.interop.release.names import network_entries
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.training.forward import Draws
from dgnet_jax.training.learning import StepContext
from dgnet_jax.training.optimizers import adam_state, make_optimizers, momentum_buffers
from dgnet_jax.training.schedules import active_terms, learning_rates, loss_weights
from dgnet_jax.training.step import update
from dgnet_jax.types import NetworkState, Teacher, TrainState
from tests.parity import goldens

NETWORKS = {'gen': 'generator', 'dis': 'discriminator', 'id': 'reid'}
# Our terms f[2], and the release's attributes for streams a and b.
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
  """TrainState and teachers at the start of a golden run."""
  parts = {}
  for theirs, ours in NETWORKS.items():
    variables = goldens.variables_of(folder, theirs, config, meta['master_seed'], num_identities)
    params = jax.tree.map(jnp.asarray, variables['params'])
    parts[ours] = NetworkState(params, variables['batch_stats'], getattr(optimizers, ours).init(params))
  teacher = goldens.variables_of(folder, 'teacher', config, meta['master_seed'], num_identities)
  state = TrainState(step=jnp.asarray(meta['iteration0'], jnp.int32), rng=jax.random.key(0), **parts)
  return state, (Teacher(**teacher),)


def golden_losses(metrics, weights):
  """Our metrics by the release's names."""
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


def check_losses(ledger, quantity, losses, expected, rtol):
  """Compares every loss but the release's unused VGG loss."""
  expected = {name: value for name, value in expected.items() if 'vgg' not in name}
  assert losses.keys() == expected.keys()
  for name, value in expected.items():
    ledger.check(quantity, abs(losses[name] - value) / max(abs(value), 1e-300), rtol, name)


def check_fingerprints(ledger, quantity, fingerprint, actual, expected, *, rtol, noise=0.0):
  """Compares fingerprints [norm, dot], relative to the expected norm plus `noise`.

  Args:
    ledger: takes the errors.
    quantity: row of the ledger.
    fingerprint: the recipe's function of name and array.
    actual: our arrays by name.
    expected: fingerprints by name; names without a counterpart are skipped.
    rtol: bound of the relative error.
    noise: size of norms that are rounding error only.

  Returns:
    The number of fingerprints compared.
  """
  checked = 0
  for name, pair in expected.items():
    if name not in actual or pair is None:
      continue
    difference = np.abs(np.subtract(fingerprint(name, actual[name]), pair)).max()
    ledger.check(quantity, difference / max(pair[0] + noise, 1e-300), rtol, name)
    checked += 1
  return checked


def weights_at(config, step):
  return loss_weights(config.weights, config.ramps, config.teaching, step)


# Fields in which the goldens differ: arguments of the compiled iteration, because a compilation takes a minute.
SCHEDULE = tuple(
  f'optimizer.{name}'
  for name in (
    *('generator_learning_rate', 'discriminator_learning_rate', 'reid_learning_rate'),
    *('decay_steps', 'gan_decay', 'reid_decay'),
  )
) + tuple(
  f'ramps.{ramp}.{name}'
  for ramp in ('structure_code', 'appearance_code', 'cycle', 'teaching')
  for name in ('initial', 'start_step', 'per_step', 'maximum')
)
_COMPILED = {}


def with_field(section, name, value):
  """A copy of a config with one field, named with dots, replaced; the value may be traced."""
  first, _, rest = name.partition('.')
  return dataclasses.replace(section, **{first: with_field(getattr(section, first), rest, value) if rest else value})


def compiled_update(config, num_identities):
  """The jitted iteration; goldens that differ only in seeds, draws and schedules share a compilation."""
  fields = dict(leaves(config.to_dict()))
  schedule = {name: fields.pop(name) for name in SCHEDULE}
  key = num_identities, *sorted(fields.items())
  if key not in _COMPILED:
    networks, teacher_network = make_networks(config, num_identities), make_teacher_network(config, num_identities)

    def step(schedule, state, teachers, batch, draws, active):
      traced = config
      for name, value in schedule.items():
        traced = with_field(traced, name, value)
      context = StepContext(networks, teacher_network, make_optimizers(traced), traced)
      return update(context, state, teachers, batch, draws, active)

    _COMPILED[key] = jax.jit(step, static_argnums=5)
  return functools.partial(_COMPILED[key], schedule)


class Run:
  """A golden run, and ours with the same weights and inputs, one iteration at a time."""

  def __init__(self, folder, name, *, compute_dtype='float32'):
    self.name, self.golden = name, goldens.load_json(folder, name)
    self.recipe = goldens.load_recipe(folder)
    self.meta = self.golden['meta']
    self.classes = self.meta['hyperparameters']['ID_class']
    self.config = goldens.config_of(self.meta, compute_dtype=compute_dtype)
    optimizers = make_optimizers(self.config)
    self.state, self._teachers = initial_state(folder, self.config, self.meta, optimizers, self.classes)

  def advance(self, number):
    """Runs iteration `number`, from 0; returns metrics and gradients."""
    step = self.meta['iteration0'] + number
    batch = goldens.pair_batch(self.recipe, self.meta, number)
    draws = Draws(jnp.asarray(self.meta['rand'][number] <= self.config.structure_encoder_update_prob))
    run = compiled_update(self.config, self.classes)
    active = active_terms(self.config.ramps, step)
    self.state, metrics, gradients = run(self.state, self._teachers, batch, draws, active)
    return metrics, gradients

  def losses(self, metrics, number):
    return golden_losses(metrics, weights_at(self.config, self.meta['iteration0'] + number))

  def named(self, network, tree, collection='params'):
    """The arrays of one of our trees by the release's names."""
    entries = [e for e in network_entries(network, self.config) if e.path[0] == collection]
    return torch_names.to_torch({collection: jax.device_get(tree)}, entries)

  def params(self, network):
    return self.named(network, getattr(self.state, NETWORKS[network]).params)

  def running_statistics(self):
    return self.named('id', self.state.reid.batch_stats, 'batch_stats')

  def slots(self, network):
    """The optimizer's slots by the release's names of slot and parameter."""
    state = getattr(self.state, NETWORKS[network]).opt_state
    if network == 'id':
      return {'momentum_buffer': self.named(network, momentum_buffers(state))}
    adam = adam_state(state)
    return {'exp_avg': self.named(network, adam.mu), 'exp_avg_sq': self.named(network, adam.nu)}


def check_weights_and_rates(config, step, golden):
  """Compares the ramped weights before and after a step, and its learning rates."""
  weights = weights_at(config, step)
  for ours, theirs in (
    ('structure_code', 'recon_s_w'),
    ('appearance_code', 'recon_f_w'),
    ('cycle', 'recon_x_cyc_w'),
    ('teaching', 'teacher_w'),
  ):
    np.testing.assert_allclose(weights.before[ours], golden['weights_before'][theirs])
    np.testing.assert_allclose(weights.after[ours], golden['weights_after'][theirs])
  rates = learning_rates(config, step)
  multiplier = config.optimizer.head_multiplier
  np.testing.assert_allclose([rates['generator']], golden['lr']['gen'])
  np.testing.assert_allclose([rates['discriminator']], golden['lr']['dis'])
  np.testing.assert_allclose([rates['reid'] * m for m in (1, multiplier, multiplier)], golden['lr']['id'])
