"""The optimizers against PyTorch's update rules, written out in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dgnet_jax.config.network_schema import TeacherConfig
from dgnet_jax.config.schema import Config, OptimizerConfig
from dgnet_jax.training.optimizers import (
  adam_state,
  make_optimizers,
  make_teacher_optimizer,
  momentum_buffers,
  scale_parts,
  with_progress,
)
from tests.parity import goldens

NUM_STEPS = 6
# Rates that drop at step 2 and twice at step 3 (see the tests of the schedules).
CONFIG = OptimizerConfig(decay_steps=3, gan_decay=0.5, reid_decay=0.2, weight_decay=0.03)
RATES = {
  'gan': 1e-4 * np.array([1, 1, 0.5, 0.125, 0.125, 0.125]),
  'reid': 2e-3 * np.array([1, 1, 0.2, 8e-3, 8e-3, 8e-3]),
}


def optimizers_of(optimizer):
  return make_optimizers(Config(optimizer=optimizer))


def random_tree(seed, parts):
  rng = np.random.default_rng(seed)
  return {part: {'kernel': rng.normal(size=(3, 2)), 'bias': rng.normal(size=2)} for part in parts}


def run(optimizer, params, gradients, state=None):
  state = optimizer.init(params) if state is None else state
  update = jax.jit(optimizer.update)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def torch_adam(params, gradients, rates, weight_decay, betas):
  """PyTorch's Adam as its documentation has it; returns parameters and both moments."""
  first, second = betas
  average = square = np.zeros_like(params)
  for count, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
    decayed = gradient + weight_decay * params
    average = first * average + (1 - first) * decayed
    square = second * square + (1 - second) * decayed**2
    corrected = average / (1 - first**count)
    params = params - rate * corrected / (np.sqrt(square / (1 - second**count)) + 1e-8)
  return params, average, square


def torch_nesterov(params, gradients, rates, weight_decay):
  """PyTorch's SGD with Nesterov momentum 0.9 as its documentation has it; returns parameters and buffer."""
  buffer = None
  for gradient, rate in zip(gradients, rates, strict=True):
    decayed = gradient + weight_decay * params
    buffer = decayed if buffer is None else 0.9 * buffer + decayed
    params = params - rate * (decayed + 0.9 * buffer)
  return params, buffer


@pytest.mark.usefixtures('x64')
class TestAgainstPyTorch:
  @pytest.mark.parametrize('network', ['generator', 'discriminator'])
  @pytest.mark.parametrize('betas', [(0.0, 0.999), (0.5, 0.9)])
  def test_adam(self, network, betas):
    params, *gradients = [random_tree(seed, ['a', 'b']) for seed in range(NUM_STEPS + 1)]
    optimizers = optimizers_of(dataclasses.replace(CONFIG, adam_betas=betas))
    after, state = run(getattr(optimizers, network), params, gradients)
    adam = adam_state(state)
    assert int(adam.count) == NUM_STEPS
    for part in params:
      for leaf, start in params[part].items():
        expected = torch_adam(start, [g[part][leaf] for g in gradients], RATES['gan'], 0.03, betas)
        actual = [tree[part][leaf] for tree in (after, adam.mu, adam.nu)]
        for a, e in zip(actual, expected, strict=True):
          np.testing.assert_allclose(a, e, rtol=1e-11)

  def test_nesterov_with_faster_heads(self):
    parts = {'backbone': 1, 'primary_head': 10, 'fine_head': 10}
    params, *gradients = [random_tree(seed, parts) for seed in range(NUM_STEPS + 1)]
    after, state = run(optimizers_of(CONFIG).reid, params, gradients)
    for part, multiplier in parts.items():
      for leaf, start in params[part].items():
        expected, buffer = torch_nesterov(start, [g[part][leaf] for g in gradients], multiplier * RATES['reid'], 0.03)
        np.testing.assert_allclose(after[part][leaf], expected, rtol=1e-12)
        np.testing.assert_allclose(momentum_buffers(state)[part][leaf], buffer, rtol=1e-12)

  def test_zero_gradient_still_decays_the_weights(self):
    """The fine-grained head during warm-up: release fact 20."""
    params = random_tree(0, ['backbone', 'primary_head', 'fine_head'])
    after, state = run(optimizers_of(CONFIG).reid, params, [jax.tree.map(np.zeros_like, params)])
    np.testing.assert_allclose(after['fine_head']['bias'], params['fine_head']['bias'] * (1 - 0.02 * 0.03 * 1.9))
    np.testing.assert_allclose(momentum_buffers(state)['fine_head']['bias'], 0.03 * params['fine_head']['bias'])

  def test_teacher_with_a_slower_backbone(self):
    teacher = TeacherConfig(learning_rate=0.1, backbone_multiplier=0.1, warmup_epochs=2, decay_epoch=4)
    rates = np.array([0.01, 0.055, 0.1, 0.1, 0.01, 0.01])  # one step is an epoch
    parts = {'backbone': 0.1, 'head': 1}
    params, *gradients = [random_tree(seed, parts) for seed in range(NUM_STEPS + 1)]
    after, _ = run(make_teacher_optimizer(teacher, CONFIG, steps_per_epoch=1), params, gradients)
    for part, multiplier in parts.items():
      expected, _ = torch_nesterov(params[part]['bias'], [g[part]['bias'] for g in gradients], multiplier * rates, 0.03)
      np.testing.assert_allclose(after[part]['bias'], expected, rtol=1e-12)


@pytest.mark.usefixtures('x64')
class TestMuon:
  CONFIG = dataclasses.replace(CONFIG, muon_multiplier=5.0, weight_decay=0.0)

  def params(self):
    rng = np.random.default_rng(0)
    shapes = {'hidden': (3, 3, 4, 16), 'colours': (3, 3, 16, 3), 'bias': (16,)}
    return [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(3)]

  def test_updates_of_hidden_kernels_are_nearly_orthogonal_and_of_adams_size(self):
    params, gradient, _ = self.params()
    after, _ = run(optimizers_of(self.CONFIG).generator, params, [gradient])
    update = (after['hidden'] - params['hidden']).reshape(-1, 16) / (5 * RATES['gan'][0])
    singular = np.linalg.svd(update, compute_uv=False)
    assert singular.max() < 2 * singular.min()
    given = np.linalg.svd(gradient['hidden'].reshape(-1, 16), compute_uv=False)
    assert given.max() > 3 * given.min()
    assert np.sqrt(np.mean(update**2)) == pytest.approx(0.2, rel=0.3)
    assert np.sum(update.reshape(gradient['hidden'].shape) * gradient['hidden']) < 0  # downhill

  def test_other_parameters_get_adam(self):
    params, *gradients = self.params()
    after, _ = run(optimizers_of(self.CONFIG).generator, params, gradients)
    adam = optax.nadam(RATES['gan'][0], 0.0, 0.999)
    for name in ('colours', 'bias'):
      expected, _ = run(adam, {name: params[name]}, [{name: gradient[name]} for gradient in gradients])
      np.testing.assert_allclose(after[name], expected[name], rtol=1e-10)

  def test_weight_decay_is_coupled(self):
    params, gradient, _ = self.params()
    optimizer = optimizers_of(dataclasses.replace(self.CONFIG, weight_decay=0.1)).generator
    decayed = jax.tree.map(lambda g, p: g + 0.1 * p, gradient, params)
    expected, _ = run(optimizers_of(self.CONFIG).generator, params, [decayed])
    after, _ = run(optimizer, params, [gradient])
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-10), after, expected)

  def test_discriminator_keeps_adam(self):
    params = self.params()[0]
    states = [optimizers_of(config).discriminator.init(params) for config in (CONFIG, self.CONFIG)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


class TestWithProgress:
  @pytest.mark.parametrize('network', ['generator', 'reid'])
  def test_continues_as_without_interruption(self, network):
    optimizer = getattr(optimizers_of(CONFIG), network)
    params, *gradients = [
      jax.tree.map(np.float32, random_tree(seed, ['backbone', 'head'])) for seed in range(NUM_STEPS + 1)
    ]
    expected, _ = run(optimizer, params, gradients)
    params, state = run(optimizer, params, gradients[:3])
    moments = adam_state(state) if network == 'generator' else optax.TraceState(momentum_buffers(state))
    resumed = with_progress(optimizer.init(params), 3, jax.device_get(moments))
    assert jax.tree.structure(resumed) == jax.tree.structure(state)
    actual, _ = run(optimizer, params, gradients[3:], resumed)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)

  def test_without_moments_changes_only_the_schedule(self):
    """Adam counts its own updates, for the correction of its bias."""
    optimizer, params = optimizers_of(CONFIG).generator, {'a': jnp.ones(2)}
    state = with_progress(optimizer.init(params), 2)
    assert int(adam_state(state).count) == 0
    updates, _ = optimizer.update({'a': jnp.ones(2)}, state, params)
    np.testing.assert_allclose(updates['a'], -RATES['gan'][2], rtol=1e-5)


def test_updates_keep_float32():
  params = jax.tree.map(np.float32, random_tree(0, ['backbone', 'primary_head', 'fine_head']))
  after, state = run(optimizers_of(CONFIG).reid, params, [params])
  assert {leaf.dtype.name for leaf in jax.tree.leaves((after, momentum_buffers(state)))} == {'float32'}


class TestScaleParts:
  def test_other_parts_get_the_other_factor(self):
    updates = random_tree(0, ('backbone', 'head'))
    scaled, _ = scale_parts({'backbone': 2.0}, 10.0).update(updates, optax.EmptyState())
    np.testing.assert_array_equal(scaled['backbone']['bias'], 2.0 * updates['backbone']['bias'])
    np.testing.assert_array_equal(scaled['head']['bias'], 10.0 * updates['head']['bias'])

  def test_unknown_part_is_rejected(self):
    params = {'trunk': jnp.ones(2)}
    with pytest.raises(ValueError, match=r"no parts \['head'\] among \['trunk'\]"):
      scale_parts({'head': 10.0}).update(params, optax.EmptyState(), params)


def test_defaults_are_those_of_the_release(parity_dir):
  golden, config = goldens.load_json(parity_dir, 'optim'), OptimizerConfig()
  for name, rate in (('gen', config.generator_learning_rate), ('dis', config.discriminator_learning_rate)):
    (group,) = golden[f'{name}_opt']['groups']
    assert (group['lr'], tuple(group['betas']), group['eps']) == (rate, config.adam_betas, 1e-8)
    assert group['weight_decay'] == config.weight_decay and not group['amsgrad']
  backbone, *heads = golden['id_opt']['groups']
  assert backbone['lr'] == config.reid_learning_rate and backbone['nesterov'] and not backbone['dampening']
  assert (backbone['momentum'], backbone['weight_decay']) == (config.reid_momentum, config.weight_decay)
  assert [head['lr'] for head in heads] == [config.head_multiplier * backbone['lr']] * 2
