import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.training.schedules import (
  active_terms,
  learning_rates,
  loss_weights,
  phase_boundaries,
  teacher_learning_rate,
)
from dgnet_jax.types import ActiveTerms
from tests.parity import goldens

RELEASE_RAMPS = {
  'structure_code': 'recon_s_w',
  'appearance_code': 'recon_f_w',
  'cycle': 'recon_x_cyc_w',
  'teaching': 'teacher_w',
}
STEP_FILES = ('train5', 'train5_hot', 'step_phase1', 'step_phase2', 'step_phase3')


@pytest.fixture
def config():
  """Ramps that start after step 2, as in the goldens' five steps, with two that differ."""
  config = default_config()
  config.num_steps = 20
  for ramp in config.ramps.values():
    ramp.start_step, ramp.per_step = 2, 0.25
  config.ramps.appearance_code.maximum = 0.5
  config.ramps.teaching.start_step = 4
  return config


class TestRamps:
  def test_written_out(self, config):
    """Weight before and after each step's increment: release facts 7 and 8."""
    after = {'structure_code': [0, 0, 0, 0.25, 0.5, 0.75, 1, 1], 'appearance_code': [0, 0, 0, 0.25, 0.5, 0.5, 0.5, 0.5]}
    after |= {'cycle': [0, 0, 0, 0.25, 0.5, 0.75, 1, 1.25], 'teaching': [0, 0, 0, 0, 0, 0.25, 0.5, 0.75]}
    for step in range(8):
      weights = loss_weights(config, step)
      for name, expected in after.items():
        assert weights.after[name] == expected[step], (name, step)
        assert weights.before[name] == (expected[step - 1] if step else 0), (name, step)

  def test_a_term_counts_one_step_after_its_weight_grows(self, config):
    at_3, at_4 = loss_weights(config, 3), loss_weights(config, 4)
    assert at_3.after['cycle'] == 0.25 and at_3.terms['cycle'] == 0
    assert at_4.before['cycle'] == 0.25 and at_4.terms['cycle'] == 0.5

  def test_teaching_multipliers(self, config):
    config.teaching.primary, config.teaching.fine_grained, config.weights.identity = 3.0, 0.2, 10.0
    terms = loss_weights(config, 7).terms  # teaching: 0.5 before, 0.75 after
    assert terms['primary_teaching'] == pytest.approx(0.75 * 3.0)
    assert terms['fine_teaching'] == pytest.approx(0.75 * 0.2)
    assert terms['fine_identity'] == pytest.approx(10.0 * 0.5 * 0.2)
    config.teaching.fine_on_real = 5.0
    assert loss_weights(config, 7).terms == terms | {'fine_identity': pytest.approx(10.0 * 0.5 * 0.2 * 5.0)}

  def test_initial_weights_hold_until_the_start(self, config):
    config.ramps.cycle.initial, config.ramps.cycle.start_step = 0.5, 0
    assert [loss_weights(config, step).before['cycle'] for step in (0, 1, 2, 3)] == [0.5, 0.5, 0.75, 1.0]
    assert loss_weights(config, 0).terms['cycle'] == 0.5

  def test_constant_weights(self, config):
    terms = loss_weights(config, 0).terms
    assert {name: terms[name] for name in config.weights} == dict(config.weights)

  def test_traced_equals_plain(self, config):
    traced = jax.jit(lambda step: loss_weights(config, step))
    for step in range(9):
      expected = loss_weights(config, step)
      actual = traced(jnp.asarray(step, jnp.int32))
      np.testing.assert_allclose(*(jax.tree.leaves(tree) for tree in (actual, expected)), rtol=1e-6)
      assert jax.tree.structure(actual) == jax.tree.structure(expected)
    assert traced._cache_size() == 1

  @pytest.mark.usefixtures('x64')
  def test_weights_leave_the_terms_precision_alone(self, config):
    weight = loss_weights(config, jnp.asarray(5, jnp.int32)).terms['cycle']
    assert (weight * jnp.ones(2, jnp.float32)).dtype == 'float32'
    assert (weight * jnp.ones(2, jnp.float64)).dtype == 'float64'


class TestActiveTerms:
  def test_phases(self, config):
    assert phase_boundaries(config) == [4, 6]
    assert active_terms(config, 3) == ActiveTerms()
    assert active_terms(config, 4) == active_terms(config, 5) == ActiveTerms(codes=True, cycle=True)
    assert active_terms(config, 6) == ActiveTerms(codes=True, cycle=True, teaching=True)

  def test_every_change_is_a_boundary(self, config):
    changes = [step for step in range(1, 20) if active_terms(config, step) != active_terms(config, step - 1)]
    assert phase_boundaries(config) == changes

  def test_boundaries_beyond_the_run_or_without_growth_are_none(self, config):
    config.num_steps = 6
    assert phase_boundaries(config) == [4]
    config.num_steps = 7
    assert phase_boundaries(config) == [4, 6]
    config.ramps.teaching.maximum = 0.0
    assert phase_boundaries(config) == [4]

  def test_active_exactly_where_a_multiplier_is_positive(self, config):
    for step in range(10):
      terms, active = loss_weights(config, step).terms, active_terms(config, step)
      assert active.codes == (terms['structure_code'] > 0 or terms['appearance_code'] > 0)
      assert active.cycle == (terms['cycle'] > 0)
      assert active.teaching == (terms['primary_teaching'] > 0) == (terms['fine_identity'] > 0)

  def test_the_release_configuration(self):
    assert phase_boundaries(default_config()) == [30_002]


class TestLearningRates:
  def test_written_out(self):
    """First steps with a new rate in the release's configuration: fact 2."""
    config = default_config()
    for step, factor in ((0, 1), (59_998, 1), (59_999, 0.1), (89_998, 0.1), (89_999, 0.01), (104_999, 0.001)):
      rates = learning_rates(config, step)
      assert rates == pytest.approx({'generator': 1e-4 * factor, 'discriminator': 1e-4 * factor, 'reid': 2e-3 * factor})

  def test_milestones_that_coincide_multiply(self):
    config = default_config()
    config.optimizer.decay_steps, config.optimizer.gan_decay, config.optimizer.reid_decay = 3, 0.5, 0.2
    rates = [learning_rates(config, step) for step in range(5)]
    assert [rate['generator'] for rate in rates] == pytest.approx([1e-4, 1e-4, 5e-5, 1.25e-5, 1.25e-5])
    assert [rate['reid'] for rate in rates] == pytest.approx([2e-3, 2e-3, 4e-4, 1.6e-5, 1.6e-5])

  def test_traced_equals_plain(self):
    config = default_config()
    traced = jax.jit(lambda step: learning_rates(config, step))
    for step in (0, 59_998, 59_999, 90_000):
      expected = learning_rates(config, step)
      assert {k: float(v) for k, v in traced(jnp.asarray(step)).items()} == pytest.approx(expected)


class TestRelease:
  """Weights and rates that the release had in its golden iterations."""

  @pytest.mark.parametrize('name', STEP_FILES)
  def test_golden_steps(self, parity_dir, name):
    golden = goldens.load_json(parity_dir, name)
    config = goldens.config_of(golden['meta'])
    for record in golden.get('steps', [golden]):
      step = record['iteration']
      weights, rates = loss_weights(config, step), learning_rates(config, step)
      for ours, theirs in RELEASE_RAMPS.items():
        assert weights.before[ours] == pytest.approx(record['weights_before'][theirs]), (name, step, ours)
        assert weights.after[ours] == pytest.approx(record['weights_after'][theirs]), (name, step, ours)
      assert rates['generator'] == pytest.approx(record['lr']['gen'][0])
      assert rates['discriminator'] == pytest.approx(record['lr']['dis'][0])
      heads = rates['reid'] * config.optimizer.head_multiplier
      assert [rates['reid'], heads, heads] == pytest.approx(record['lr']['id'])

  def test_golden_rates(self, parity_dir):
    measured = goldens.load_json(parity_dir, 'optim')['measured_lr_latest_yaml_changes']
    rows = next(value for key, value in measured.items() if key != 'milestones')
    for step, generator, reid, heads in rows:
      rates = learning_rates(default_config(), step)
      assert (rates['generator'], rates['reid'], 10 * rates['reid']) == pytest.approx((generator, reid, heads))

  def test_golden_rates_of_repeated_milestones(self, parity_dir):
    """The file's key says its settings."""
    found = goldens.load_json(parity_dir, 'optim')
    key = next(key for key in found if key.startswith('measured_lr_step_size'))
    decay_steps, gan_decay, reid_decay = re.fullmatch(
      r'measured_lr_step_size(\d+)_gamma([\d.]+)_gamma2_([\d.]+)', key
    ).groups()
    config = default_config()
    config.optimizer.update(decay_steps=int(decay_steps), gan_decay=float(gan_decay), reid_decay=float(reid_decay))
    rows = next(value for name, value in found[key].items() if name.startswith('per_iteration'))
    assert len(rows) > int(decay_steps)
    for step, row in enumerate(rows):
      rates = learning_rates(config, step)
      heads = config.optimizer.head_multiplier * rates['reid']
      assert [float(rates['generator']), float(rates['reid']), float(heads)] == pytest.approx(row)


class TestTeacherLearningRate:
  def test_written_out(self):
    config = default_config()
    config.teacher.update(learning_rate=0.05, warmup_epochs=2, decay_epoch=4)
    expected = {0: 0.005, 5: 0.0275, 10: 0.05, 19: 0.05, 20: 0.005, 99: 0.005}  # 5 steps are an epoch
    traced = jax.jit(lambda step: teacher_learning_rate(config, 5, step))
    for step, rate in expected.items():
      assert teacher_learning_rate(config, 5, step) == pytest.approx(rate)
      assert float(traced(jnp.asarray(step, jnp.int32))) == pytest.approx(rate)

  def test_without_warm_up(self):
    config = default_config()
    config.teacher.warmup_epochs = 0
    assert teacher_learning_rate(config, 5, 0) == config.teacher.learning_rate
