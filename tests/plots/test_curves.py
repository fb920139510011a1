"""Curves from a run's metrics."""

import json

import numpy as np
import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.plots import curves


@pytest.fixture
def metrics(tmp_path):
  lines = [
    {'step': step, 'loss/total': 1 / step, 'loss/cycle': None, 'loss/new': 1.0, 'weight/cycle': 2.0, 'rate/reid': 0.1}
    for step in (10, 20, 30)
  ]
  path = tmp_path / 'metrics.jsonl'
  path.write_text('\n'.join(map(json.dumps, lines)) + '\n{"step": 40, "loss/to')
  return path


def test_read_metrics_skips_an_incomplete_line(metrics):
  series = curves.read_metrics(metrics)
  assert list(series) == ['loss/total', 'loss/cycle', 'loss/new', 'weight/cycle', 'rate/reid']
  steps, values = series['loss/total']
  assert steps.tolist() == [10, 20, 30] and values.tolist() == [0.1, 0.05, 1 / 30]
  assert np.isnan(series['loss/cycle'][1]).all()


def test_every_curve_is_in_a_panel(metrics):
  assert curves.panels_of(curves.read_metrics(metrics)) == {
    'reconstruction': ['loss/cycle'],
    'total': ['loss/total'],
    'other': ['loss/new'],
    'loss weights': ['weight/cycle'],
    'learning rates': ['rate/reid'],
  }


def test_rankings_during_training_have_their_own_panel(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  lines = [{'step': step, 'validation/rank_1': 0.5, 'validation/mAP': step / 100} for step in (10, 20)]
  path.write_text('\n'.join(map(json.dumps, lines)))
  series = curves.read_metrics(path)
  assert curves.panels_of(series) == {'ranking, validation split': ['validation/mAP', 'validation/rank_1']}
  assert curves.draw_curves(series, tmp_path / 'c.png', 'a run').stat().st_size > 5_000


def test_smoothing_averages_and_keeps_gaps():
  values = np.random.default_rng(0).normal(size=500)
  smooth = curves.smoothed(values)
  assert smooth.std() < values.std() / 2
  np.testing.assert_allclose(smooth[250], values[245:256].mean())
  np.testing.assert_array_equal(curves.smoothed(np.full(300, 2.0)), 2.0)
  values[100:200] = np.nan
  assert np.isnan(curves.smoothed(values)[150]) and np.isfinite(curves.smoothed(values)[[0, 99, 200]]).all()


@pytest.mark.parametrize('suffix', curves.FORMATS)
def test_figure_has_the_format_of_its_suffix(metrics, tmp_path, suffix):
  path = curves.draw_curves(curves.read_metrics(metrics), tmp_path / f'c{suffix}', 'a run')
  start = {'.png': b'\x89PNG', '.svg': b'<?xml', '.pdf': b'%PDF'}[suffix]
  assert path.read_bytes().startswith(start)


def test_missing_file_and_missing_metrics_are_reported(tmp_path):
  with pytest.raises(UserError, match='no such file'):
    curves.read_metrics(tmp_path / 'metrics.jsonl')
  (tmp_path / 'metrics.jsonl').write_text('half')
  with pytest.raises(UserError, match='no metrics'):
    curves.read_metrics(tmp_path / 'metrics.jsonl')


@pytest.mark.parametrize(
  'line', ['[]', '3', '{"step": 1e400}', '{"step": 1, "loss/x": "a"}', '{"step": []}', '[' * 9999]
)
def test_lines_that_are_not_metrics_are_skipped(metrics, line):
  expected = curves.read_metrics(metrics)
  metrics.write_bytes(line.encode() + b'\n\xff\xfe\n' + metrics.read_bytes())
  assert curves.read_metrics(metrics).keys() == expected.keys()


def test_metrics_of_a_teacher_are_reported(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 2, "loss": 1.5, "accuracy": 0.5}')
  with pytest.raises(UserError, match='no metrics of DG-Net'):
    curves.read_metrics(tmp_path / 'metrics.jsonl')


@pytest.mark.parametrize('title', ['$a_$', 'a\udc80', 'a\nb', '$'])
def test_any_folder_can_be_in_the_title(metrics, tmp_path, title):
  metrics.write_text(metrics.read_text().replace('loss/new', 'loss/$_$'))
  assert curves.draw_curves(curves.read_metrics(metrics), tmp_path / 'c.png', title).is_file()
