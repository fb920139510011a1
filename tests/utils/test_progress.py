"""Progress lines: duration, rate and remaining time."""

import time

import pytest

from dgnet_jax.utils.progress import Progress, format_seconds


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0, '0s'), (59.9, '59s'), (60, '1m00s'), (425, '7m05s'), (12_000, '3h20m'), (187_200, '2d04h')],
)
def test_durations_have_two_units(seconds, text):
  assert format_seconds(seconds) == text


def test_rate_is_measured_since_the_previous_line(monkeypatch):
  clock = iter([0.0, 10.0, 14.0])
  monkeypatch.setattr(time, 'monotonic', lambda: next(clock))
  progress = Progress(100, start=20, unit='images')
  assert progress.line(40) == '40/100  2.00 images/s  30s left'
  assert progress.line(80, 'loss 1') == '80/100  loss 1  10.00 images/s  2s left'


def test_remaining_time_is_unknown_without_progress():
  assert Progress(10).line(0).endswith('0.00 steps/s  ? left')
