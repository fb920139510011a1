"""Loss weights, active terms and learning rates by step: values by hand, and those of the release's goldens."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.schema import (
  Config,
  OptimizerConfig,
  RampConfig,
  RampsConfig,
  TeacherConfig,
  TeachingConfig,
  WeightsConfig,
)
from dgnet_jax.training.schedules import (
  active_terms,
  learning_rates,
  loss_weights,
  phase_boundaries,
  teacher_schedule,
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
# Ramps that start after step 2, as in the goldens' five steps, except two that differ.
RAMPS = RampsConfig(
  structure_code=RampConfig(start_step=2, per_step=0.25),
  appearance_code=RampConfig(start_step=2, per_step=0.25, maximum=0.5),
  cycle=RampConfig(start_step=2, per_step=0.25, maximum=2.0),
  teaching=RampConfig(start_step=4, per_step=0.25, maximum=2.0),
)
NUM_STEPS = 20


def weights_at(step, ramps=RAMPS, *, weights=WeightsConfig(), teaching=TeachingConfig()):  # noqa: B008 (frozen)
  return loss_weights(weights, ramps, teaching, step)


def rates_at(optimizer, step, num_steps=100):
  return learning_rates(Config(optimizer=optimizer, num_steps=num_steps), step)


class TestLossWeights:
  def test_ramps_by_hand(self):
    """The weights before and after the increment of each step: release facts 7 and 8."""
    after = {'structure_code': [0, 0, 0, 0.25, 0.5, 0.75, 1, 1], 'appearance_code': [0, 0, 0, 0.25, 0.5, 0.5, 0.5, 0.5]}
    after |= {'cycle': [0, 0, 0, 0.25, 0.5, 0.75, 1, 1.25], 'teaching': [0, 0, 0, 0, 0, 0.25, 0.5, 0.75]}
    for step in range(8):
      weights = weights_at(step)
      for name, expected in after.items():
        assert weights.after[name] == expected[step], (name, step)
        assert weights.before[name] == (expected[step - 1] if step else 0), (name, step)

  def test_term_counts_one_step_after_its_weight_grows(self):
    at_3, at_4 = weights_at(3), weights_at(4)
    assert at_3.after['cycle'] == 0.25 and at_3.terms['cycle'] == 0
    assert at_4.before['cycle'] == 0.25 and at_4.terms['cycle'] == 0.5

  def test_teaching_terms_by_hand(self):
    weights = WeightsConfig(identity=10.0)
    teaching = TeachingConfig(primary=3.0, fine_grained=0.2)
    terms = weights_at(7, weights=weights, teaching=teaching).terms  # teaching weight: 0.5 before, 0.75 after
    assert terms['primary_teaching'] == pytest.approx(0.75 * 3.0)
    assert terms['fine_teaching'] == pytest.approx(0.75 * 0.2)
    assert terms['fine_identity'] == pytest.approx(10.0 * 0.5 * 0.2)
    teaching = dataclasses.replace(teaching, fine_on_real=5.0)
    more_on_real = weights_at(7, weights=weights, teaching=teaching).terms
    assert more_on_real == terms | {'fine_identity': pytest.approx(10.0 * 0.5 * 0.2 * 5.0)}

  def test_metric_losses_of_the_fine_grained_head_are_weighted_like_its_identification(self):
    weights, teaching = WeightsConfig(triplet=2.0, circle=0.5), TeachingConfig(fine_grained=0.2, fine_on_real=3.0)
    terms = weights_at(7, weights=weights, teaching=teaching).terms
    assert (terms['triplet'], terms['circle']) == (2.0, 0.5)
    assert terms['fine_triplet'] == pytest.approx(2.0 * terms['fine_identity'])
    assert terms['fine_circle'] == pytest.approx(0.5 * 0.5 * 0.2 * 3.0)

  def test_initial_weight_holds_until_the_ramp_starts(self):
    ramps = dataclasses.replace(RAMPS, cycle=RampConfig(initial=0.5, start_step=0, per_step=0.25, maximum=2.0))
    assert [weights_at(step, ramps).before['cycle'] for step in (0, 1, 2, 3)] == [0.5, 0.5, 0.75, 1.0]
    assert weights_at(0, ramps).terms['cycle'] == 0.5

  def test_constant_weights_are_those_of_the_config(self):
    weights = WeightsConfig(adversarial=2.0, identity=3.0)
    terms = weights_at(0, weights=weights).terms
    assert dataclasses.asdict(weights).items() <= terms.items()

  def test_traced_step_gives_the_same_weights(self):
    traced = jax.jit(weights_at)
    for step in range(9):
      expected = weights_at(step)
      actual = traced(jnp.asarray(step, jnp.int32))
      np.testing.assert_allclose(*(jax.tree.leaves(tree) for tree in (actual, expected)), rtol=1e-6)
      assert jax.tree.structure(actual) == jax.tree.structure(expected)
    assert traced._cache_size() == 1

  @pytest.mark.usefixtures('x64')
  def test_weights_do_not_change_the_dtype_of_a_term(self):
    weight = weights_at(jnp.asarray(5, jnp.int32)).terms['cycle']
    assert (weight * jnp.ones(2, jnp.float32)).dtype == 'float32'
    assert (weight * jnp.ones(2, jnp.float64)).dtype == 'float64'


class TestActiveTerms:
  def test_terms_by_hand(self):
    assert active_terms(RAMPS, 3) == ActiveTerms()
    assert active_terms(RAMPS, 4) == active_terms(RAMPS, 5) == ActiveTerms(codes=True, cycle=True)
    assert active_terms(RAMPS, 6) == ActiveTerms(codes=True, cycle=True, teaching=True)

  def test_boundaries_are_the_steps_of_change(self):
    changes = [step for step in range(1, NUM_STEPS) if active_terms(RAMPS, step) != active_terms(RAMPS, step - 1)]
    assert phase_boundaries(RAMPS, NUM_STEPS) == changes == [4, 6]

  def test_boundaries_lie_within_the_run(self):
    assert phase_boundaries(RAMPS, 6) == [4]
    assert phase_boundaries(RAMPS, 7) == [4, 6]

  def test_ramp_that_stays_at_0_has_no_boundary(self):
    ramps = dataclasses.replace(RAMPS, teaching=RampConfig(start_step=4, maximum=0.0))
    assert phase_boundaries(ramps, NUM_STEPS) == [4]

  def test_generator_stops_after_its_steps(self):
    assert active_terms(RAMPS, 4, generator_steps=5) == ActiveTerms(codes=True, cycle=True)
    assert active_terms(RAMPS, 5, generator_steps=5) == ActiveTerms(generator=False)
    assert active_terms(RAMPS, 6, generator_steps=5) == ActiveTerms(generator=False, teaching=True)
    assert phase_boundaries(RAMPS, NUM_STEPS, generator_steps=5) == [4, 5, 6]
    assert phase_boundaries(RAMPS, NUM_STEPS, generator_steps=6) == [4, 6]

  def test_active_where_the_weight_of_a_term_is_positive(self):
    for step in range(10):
      terms, active = weights_at(step).terms, active_terms(RAMPS, step)
      assert active.codes == (terms['structure_code'] > 0 or terms['appearance_code'] > 0)
      assert active.cycle == (terms['cycle'] > 0)
      assert active.teaching == (terms['primary_teaching'] > 0) == (terms['fine_identity'] > 0)

  def test_boundary_of_the_release_configuration(self):
    assert phase_boundaries(RampsConfig(), Config().num_steps) == [30_002]


class TestLearningRates:
  def test_first_steps_at_each_rate_of_the_release(self):
    """Each drop comes one step early: fact 2."""
    for step, factor in ((0, 1), (59_998, 1), (59_999, 0.1), (89_998, 0.1), (89_999, 0.01), (104_999, 0.001)):
      rates = rates_at(OptimizerConfig(), step)
      assert rates == pytest.approx({'generator': 1e-4 * factor, 'discriminator': 1e-4 * factor, 'reid': 2e-3 * factor})

  def test_milestones_that_coincide_multiply(self):
    optimizer = OptimizerConfig(decay_steps=3, gan_decay=0.5, reid_decay=0.2)  # milestones 3, 4 and 4
    rates = [rates_at(optimizer, step) for step in range(5)]
    assert [rate['generator'] for rate in rates] == pytest.approx([1e-4, 1e-4, 5e-5, 1.25e-5, 1.25e-5])
    assert [rate['reid'] for rate in rates] == pytest.approx([2e-3, 2e-3, 4e-4, 1.6e-5, 1.6e-5])

  def test_schedule_step_drops_at_every_multiple(self):
    """Multiples 3, 6 and 9 of decay_steps, each one step early."""
    optimizer = OptimizerConfig(schedule='step', decay_steps=3, gan_decay=0.5, reid_decay=0.2)
    rates = [rates_at(optimizer, step) for step in range(9)]
    drops = [0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert [rate['generator'] for rate in rates] == pytest.approx([1e-4 * 0.5**count for count in drops])
    assert [rate['discriminator'] for rate in rates] == pytest.approx([1e-4 * 0.5**count for count in drops])
    assert [rate['reid'] for rate in rates] == pytest.approx([2e-3 * 0.2**count for count in drops])

  def test_cosine_of_the_generator_ends_at_its_last_step(self):
    optimizer = OptimizerConfig(
      generator_learning_rate=2.0, discriminator_learning_rate=4.0, gan_schedule='cosine', generator_steps=10
    )
    at = [rates_at(optimizer, step) for step in (-1, 0, 5, 10, 99)]
    assert [rates['generator'] for rates in at] == pytest.approx([2, 2, 2 * 0.55, 0.2, 0.2])
    assert [rates['discriminator'] for rates in at] == pytest.approx([4, 4, 4 * 0.55, 0.4, 0.4])
    assert [rates['reid'] for rates in at] == [optimizer.reid_learning_rate] * 5
    traced = jax.jit(lambda step: rates_at(optimizer, step))(jnp.asarray(5, jnp.int32))
    assert float(traced['generator']) == pytest.approx(1.1)

  def test_cosine_of_the_reid_network_ends_with_the_run(self):
    optimizer = OptimizerConfig(reid_learning_rate=2.0, reid_schedule='cosine', decay_steps=1, reid_warmup_steps=10)
    at = [rates_at(optimizer, step, num_steps=30) for step in (-1, 0, 5, 10, 20, 30, 99)]
    assert [rates['reid'] for rates in at] == pytest.approx([0.2, 0.2, 1.1, 2, 1, 0, 0])
    assert [rates['generator'] for rates in at] == [
      rates_at(OptimizerConfig(decay_steps=1), step)['generator'] for step in (-1, 0, 5, 10, 20, 30, 99)
    ]
    traced = jax.jit(lambda step: rates_at(optimizer, step, num_steps=30))
    for step, rate in {5: 1.1, 20: 1.0}.items():
      assert float(traced(jnp.asarray(step, jnp.int32))['reid']) == pytest.approx(rate)

  def test_warmup_of_the_reid_network_also_goes_with_the_drops(self):
    optimizer = OptimizerConfig(decay_steps=4, reid_learning_rate=2.0, reid_warmup_steps=2)
    rates = [rates_at(optimizer, step)['reid'] for step in range(5)]
    assert rates == pytest.approx([0.2, 1.1, 2, 0.2, 0.2])

  def test_schedule_constant_never_drops(self):
    optimizer = OptimizerConfig(schedule='constant', decay_steps=1)
    for step in (0, 1, 10**6):
      assert rates_at(optimizer, step) == {'generator': 1e-4, 'discriminator': 1e-4, 'reid': 2e-3}

  @pytest.mark.parametrize('schedule', ['multistep', 'step', 'constant'])
  def test_rates_before_the_run_are_the_initial_ones(self, schedule):
    optimizer = OptimizerConfig(schedule=schedule, decay_steps=1)
    assert rates_at(optimizer, -1) == {'generator': 1e-4, 'discriminator': 1e-4, 'reid': 2e-3}

  @pytest.mark.parametrize('schedule', ['multistep', 'step', 'constant'])
  def test_traced_step_gives_the_same_rates(self, schedule):
    optimizer = OptimizerConfig(schedule=schedule)
    traced = jax.jit(lambda step: rates_at(optimizer, step))
    for step in (0, 59_998, 59_999, 90_000, 119_998, 119_999):
      actual = {name: float(rate) for name, rate in traced(jnp.asarray(step)).items()}
      assert actual == pytest.approx(rates_at(optimizer, step)), step


class TestRelease:
  """Weights and rates of the golden iterations."""

  @pytest.mark.parametrize('name', STEP_FILES)
  def test_weights_and_rates_of_the_golden_steps(self, parity_dir, name):
    golden = goldens.load_json(parity_dir, name)
    config = goldens.config_of(golden['meta'])
    for record in golden.get('steps', [golden]):
      step = record['iteration']
      weights, rates = weights_at(step, config.ramps), learning_rates(config, step)
      for ours, theirs in RELEASE_RAMPS.items():
        assert weights.before[ours] == pytest.approx(record['weights_before'][theirs]), (name, step, ours)
        assert weights.after[ours] == pytest.approx(record['weights_after'][theirs]), (name, step, ours)
      assert rates['generator'] == pytest.approx(record['lr']['gen'][0])
      assert rates['discriminator'] == pytest.approx(record['lr']['dis'][0])
      heads = rates['reid'] * config.optimizer.head_multiplier
      assert [rates['reid'], heads, heads] == pytest.approx(record['lr']['id'])

  def test_rates_of_the_release_configuration(self, parity_dir):
    measured = goldens.load_json(parity_dir, 'optim')['measured_lr_latest_yaml_changes']
    rows = next(value for key, value in measured.items() if key != 'milestones')
    for step, generator, reid, heads in rows:
      rates = rates_at(OptimizerConfig(), step)
      assert (rates['generator'], rates['reid'], 10 * rates['reid']) == pytest.approx((generator, reid, heads))

  def test_rates_with_repeated_milestones(self, parity_dir):
    """The key in the file holds the settings."""
    measured = goldens.load_json(parity_dir, 'optim')
    key = next(key for key in measured if key.startswith('measured_lr_step_size'))
    decay_steps, gan_decay, reid_decay = re.fullmatch(
      r'measured_lr_step_size(\d+)_gamma([\d.]+)_gamma2_([\d.]+)', key
    ).groups()
    optimizer = OptimizerConfig(decay_steps=int(decay_steps), gan_decay=float(gan_decay), reid_decay=float(reid_decay))
    rows = next(value for name, value in measured[key].items() if name.startswith('per_iteration'))
    assert len(rows) > int(decay_steps)
    for step, row in enumerate(rows):
      rates = rates_at(optimizer, step)
      assert [rates['generator'], rates['reid'], optimizer.head_multiplier * rates['reid']] == pytest.approx(row)


class TestTeacherSchedule:
  def test_rates_by_hand(self):
    """Five steps are an epoch."""
    schedule = teacher_schedule(TeacherConfig(learning_rate=0.05, warmup_epochs=2, decay_epoch=4), 5)
    for step, rate in {0: 0.005, 5: 0.0275, 10: 0.05, 19: 0.05, 20: 0.005, 99: 0.005}.items():
      assert float(schedule(step)) == pytest.approx(rate), step
      assert float(jax.jit(schedule)(jnp.asarray(step, jnp.int32))) == pytest.approx(rate), step

  def test_without_warmup_starts_at_the_full_rate(self):
    assert float(teacher_schedule(TeacherConfig(learning_rate=0.05, warmup_epochs=0), 5)(0)) == pytest.approx(0.05)

  def test_cosine_by_hand(self):
    """Five steps are an epoch: warm-up for ten steps, then half a cosine until step 30."""
    teacher = TeacherConfig(learning_rate=0.05, warmup_epochs=2, decay_epoch=1, num_epochs=6, schedule='cosine')
    schedule = teacher_schedule(teacher, 5)
    for step, rate in {0: 0.005, 5: 0.0275, 10: 0.05, 15: 0.0426777, 20: 0.025, 30: 0.0, 99: 0.0}.items():
      assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-9), step
      assert float(jax.jit(schedule)(jnp.asarray(step, jnp.int32))) == pytest.approx(rate, rel=1e-5, abs=1e-8), step
