import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.training.optimizers import (
  adam_slots,
  make_optimizers,
  make_teacher_optimizer,
  momentum_slots,
  scale_parts,
)
from tests.parity import goldens

NUM_STEPS = 6


@pytest.fixture
def config():
  """Rates that drop at step 2 and twice at step 3 (see the schedules' tests)."""
  config = default_config()
  settings = config.optimizer
  settings.decay_steps, settings.gan_decay, settings.reid_decay, settings.weight_decay = 3, 0.5, 0.2, 0.03
  return config


RATES = {
  'gan': 1e-4 * np.array([1, 1, 0.5, 0.125, 0.125, 0.125]),
  'reid': 2e-3 * np.array([1, 1, 0.2, 8e-3, 8e-3, 8e-3]),
}


def random_tree(seed, parts):
  generator = np.random.default_rng(seed)
  return {part: {'kernel': generator.normal(size=(3, 2)), 'bias': generator.normal(size=2)} for part in parts}


def run(optimizer, params, gradients):
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def test_parts_not_named_get_the_other_multiplier():
  updates = random_tree(0, ('backbone', 'head'))
  scaled, _ = scale_parts({'backbone': 2.0}, 10.0).update(updates, optax.EmptyState())
  np.testing.assert_array_equal(scaled['backbone']['bias'], 2.0 * updates['backbone']['bias'])
  np.testing.assert_array_equal(scaled['head']['bias'], 10.0 * updates['head']['bias'])


def torch_adam(params, gradients, rates, weight_decay):
  """PyTorch's Adam with betas (0, 0.999), as its documentation writes it."""
  square = np.zeros_like(params)
  for count, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
    average = gradient + weight_decay * params
    square = 0.999 * square + 0.001 * average**2
    params = params - rate * average / (np.sqrt(square) / np.sqrt(1 - 0.999**count) + 1e-8)
  return params, average, square


def torch_nesterov(params, gradients, rates, weight_decay):
  """PyTorch's SGD with Nesterov momentum 0.9, as its documentation writes it."""
  buffer = None
  for gradient, rate in zip(gradients, rates, strict=True):
    decayed = gradient + weight_decay * params
    buffer = decayed if buffer is None else 0.9 * buffer + decayed
    params = params - rate * (decayed + 0.9 * buffer)
  return params, buffer


@pytest.mark.usefixtures('x64')
class TestAgainstPyTorchArithmetic:
  @pytest.mark.parametrize('network', ['generator', 'discriminator'])
  def test_adam(self, config, network):
    params, *gradients = [random_tree(seed, ['a', 'b']) for seed in range(NUM_STEPS + 1)]
    after, state = run(getattr(make_optimizers(config), network), params, gradients)
    for part in params:
      for leaf, start in params[part].items():
        expected = torch_adam(start, [g[part][leaf] for g in gradients], RATES['gan'], 0.03)
        actual = [tree[part][leaf] for tree in (after, *adam_slots(state))]
        for a, e in zip(actual, expected, strict=True):
          np.testing.assert_allclose(a, e, rtol=1e-12)

  def test_nesterov_with_faster_heads(self, config):
    parts = {'backbone': 1, 'primary_head': 10, 'fine_head': 10}
    params, *gradients = [random_tree(seed, parts) for seed in range(NUM_STEPS + 1)]
    after, state = run(make_optimizers(config).reid, params, gradients)
    for part, multiplier in parts.items():
      for leaf, start in params[part].items():
        expected, buffer = torch_nesterov(start, [g[part][leaf] for g in gradients], multiplier * RATES['reid'], 0.03)
        np.testing.assert_allclose(after[part][leaf], expected, rtol=1e-12)
        np.testing.assert_allclose(momentum_slots(state)[part][leaf], buffer, rtol=1e-12)

  def test_a_zero_gradient_still_decays(self, config):
    """The fine head during warm-up: release fact 20."""
    params = random_tree(0, ['backbone', 'primary_head', 'fine_head'])
    after, state = run(make_optimizers(config).reid, params, [jax.tree.map(np.zeros_like, params)])
    np.testing.assert_allclose(after['fine_head']['bias'], params['fine_head']['bias'] * (1 - 0.02 * 0.03 * 1.9))
    np.testing.assert_allclose(momentum_slots(state)['fine_head']['bias'], 0.03 * params['fine_head']['bias'])

  def test_teacher_with_a_slower_backbone(self, config):
    config.teacher.update(learning_rate=0.1, backbone_multiplier=0.1, warmup_epochs=2, decay_epoch=4)
    rates = np.array([0.01, 0.055, 0.1, 0.1, 0.01, 0.01])  # one step is an epoch
    parts = {'backbone': 0.1, 'head': 1}
    params, *gradients = [random_tree(seed, parts) for seed in range(NUM_STEPS + 1)]
    after, _ = run(make_teacher_optimizer(config, 1), params, gradients)
    for part, multiplier in parts.items():
      expected, _ = torch_nesterov(params[part]['bias'], [g[part]['bias'] for g in gradients], multiplier * rates, 0.03)
      np.testing.assert_allclose(after[part]['bias'], expected, rtol=1e-12)


def test_float32_stays_float32(config):
  params = jax.tree.map(lambda x: x.astype(np.float32), random_tree(0, ['backbone', 'primary_head', 'fine_head']))
  after, state = run(make_optimizers(config).reid, params, [params])
  assert {leaf.dtype.name for leaf in jax.tree.leaves((after, momentum_slots(state)))} == {'float32'}


def test_an_unknown_part_is_named():
  params = {'trunk': jnp.ones(2)}
  with pytest.raises(ValueError, match=r"\['head'\] not among the parts \['trunk'\]"):
    scale_parts({'head': 10.0}).update(params, optax.EmptyState(), params)


def test_release_hyper_parameters(parity_dir):
  golden = goldens.load_json(parity_dir, 'optim')
  settings = default_config().optimizer
  for name, rate in (('gen', settings.generator_learning_rate), ('dis', settings.discriminator_learning_rate)):
    (group,) = golden[f'{name}_opt']['groups']
    assert (group['lr'], group['betas'], group['eps']) == (rate, [0.0, 0.999], 1e-8)
    assert group['weight_decay'] == settings.weight_decay and not group['amsgrad']
  backbone, *heads = golden['id_opt']['groups']
  assert backbone['lr'] == settings.reid_learning_rate and backbone['nesterov'] and not backbone['dampening']
  assert (backbone['momentum'], backbone['weight_decay']) == (settings.reid_momentum, settings.weight_decay)
  assert [head['lr'] for head in heads] == [settings.head_multiplier * backbone['lr']] * 2
