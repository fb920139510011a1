"""Alarms about finite losses: each fires when it should, once, and not on losses like those of good runs."""

import math

import numpy as np
import pytest

from dgnet_jax.config.network_schema import DiscriminatorConfig
from dgnet_jax.training.alarms import SPIKE, WINDOW, Alarms, find_alarms, loss_at_chance

LSGAN = DiscriminatorConfig(num_scales=2)


def raised(name, values, discriminator=LSGAN):
  return list(find_alarms([{name: value} for value in values], discriminator))


def falling():
  """Reports like those of a good run: everything falls with noise, the discriminator stays near chance."""
  rng = np.random.default_rng(0)
  for report in range(200):
    fall = 1 + 9 * math.exp(-report / 20)
    noise = rng.normal(1, 0.05, 3)
    yield {'total': 5 * fall * noise[0], 'discriminator': 0.98 + 0.005 * noise[1], 'mask_area': 0.4 * noise[2]}


def test_a_good_run_raises_nothing():
  alarms = Alarms(LSGAN)
  assert [alarms.add(report) for report in falling()] == [[]] * 200


def test_total_above_five_times_the_median_of_ten_reports_is_a_spike():
  before = [2.0] * (WINDOW - 1) + [100.0]
  assert raised('total', [*before, SPIKE * 2 + 0.1]) == ['spike']
  assert not raised('total', [*before, SPIKE * 2])
  assert not raised('total', [*before[1:], SPIKE * 2 + 0.1]), 'fewer than ten reports'
  assert not raised('total', [-2.0] * WINDOW + [1.0]), 'no ratio to a negative loss'


@pytest.mark.parametrize(
  ('name', 'collapsed', 'kind'),
  [
    ('discriminator', 0.01, 'discriminator_wins'),
    ('discriminator', 1.001, 'discriminator_at_chance'),
    ('mask_area', 0.005, 'empty_mask'),
    ('mask_area', 0.995, 'full_mask'),
  ],
)
def test_a_part_has_collapsed_if_it_has_in_ten_reports(name, collapsed, kind):
  assert raised(name, [collapsed] * WINDOW) == [kind]
  assert not raised(name, [collapsed] * (WINDOW - 1))
  assert not raised(name, [*[collapsed] * (WINDOW - 1), 0.5])
  assert not raised(name, [0.5, *[collapsed] * (WINDOW - 1)])


def test_chance_is_the_loss_of_one_answer_for_all_images():
  """By the losses themselves, with scores at which real and generated images are equally likely."""
  from dgnet_jax.losses.adversarial import adversarial_losses

  for gan_type, score in (('lsgan', 0.5), ('nsgan', 0.0)):
    scores = [np.full((1, 4, 2), score, np.float32)] * 3
    loss = adversarial_losses(gan_type, 1).discriminator(scores, scores)
    np.testing.assert_allclose(loss, loss_at_chance(DiscriminatorConfig(gan_type=gan_type, num_scales=3)), rtol=1e-6)


def test_a_critic_has_no_chance_level():
  critic = DiscriminatorConfig(gan_type='wgan')
  assert loss_at_chance(critic) is None
  assert not raised('discriminator', [0.0] * WINDOW, critic)


def test_an_alarm_is_raised_again_only_after_it_ended():
  alarms, spike = Alarms(LSGAN), {'total': 9.0}
  for _ in range(WINDOW):
    assert not alarms.add({'total': 1.0})
  (text,) = alarms.add(spike)
  assert 'the total loss, 9, is more than 5 times the median of the 10 reports before, 1. ' in text
  assert not alarms.add(spike) and not alarms.add({'total': 1.0})
  assert len(alarms.add(spike)) == 1


def test_new_terms_start_a_new_window():
  alarms = Alarms(LSGAN)
  for _ in range(WINDOW):
    alarms.add({'total': 1.0})
  assert not alarms.add({'total': 9.0, 'cycle': 1.0})
