"""The parts of the report on generated images against the truth; tests/test_evaluate.py makes a whole one."""

import numpy as np
import pytest

from dgnet_jax.reports.ground_truth import KINDS, draw_images, feature_distances, group_means, image_table


def test_who_goes_with_whom():
  identity = np.array([1, 0, -1, 2, 2, 2, 1, 9, 9])
  draw = draw_images(identity, 70)
  assert (identity[draw.structure] != identity[draw.other]).all()
  assert (identity[draw.structure] == identity[draw.same]).all() and (draw.structure != draw.same).all()
  assert all((identity[part] > 0).all() for part in (draw.structure, draw.other, draw.same))
  people = np.flatnonzero(identity > 0)
  np.testing.assert_array_equal(np.bincount(draw.structure)[people], 10)
  assert set(draw.other) == set(draw.same) == set(people)
  np.testing.assert_array_equal(draw_images(identity, 70).other, draw.other)


def test_means_of_groups_by_hand():
  nan = np.nan
  values = {'psnr': np.array([10.0, 20, 30, 50]), 'pattern_fidelity': np.array([nan, 0.5, nan, 0.25])}
  patterned, same_camera = np.array([False, True, True, True]), np.array([True, True, False, False])
  assert group_means(values, patterned, same_camera) == {
    'all': {'count': 4, 'psnr': 27.5, 'pattern_fidelity': 0.375, 'pattern_count': 2},
    'plain': {'count': 1, 'psnr': 10.0, 'pattern_count': 0},
    'patterned': {'count': 3, 'psnr': pytest.approx(100 / 3), 'pattern_fidelity': 0.375, 'pattern_count': 2},
    'same_camera': {'count': 2, 'psnr': 15.0, 'pattern_fidelity': 0.5, 'pattern_count': 1},
    'other_camera': {'count': 2, 'psnr': 40.0, 'pattern_fidelity': 0.25, 'pattern_count': 1},
  }
  assert list(group_means(values, ~patterned | True, same_camera | True)) == ['all', 'patterned']


def test_feature_distances():
  rng = np.random.default_rng(0)
  real, truth = rng.normal(size=(4000, 3)), rng.normal(size=(4000, 3))
  warnings = []
  result = feature_distances(real, truth + [3, 4, 0], truth)
  assert result['generated'] == pytest.approx(25, abs=0.5)
  assert max(result['truth'], result['real_halves']) < 0.02
  assert (result['dimensions'], result['num_real'], result['num_generated']) == (3, 4000, 4000)
  assert not warnings
  feature_distances(real[:6], truth, truth)
  assert len(warnings) == 1 and '3 in half of the real ones' in warnings[0]


def test_table():
  row = {'count': 7, 'psnr': 21.5, 'ssim': 0.8, 'colour_error': 12.25, 'pattern_count': 0}
  results = {kind: {'all': row} for kind in KINDS} | {
    'diversity': {'generated': None, 'real': 0.35},
    'teacher_frechet_distance': dict.fromkeys(('generated', 'truth', 'real_halves'), 0.125)
    | {'dimensions': 8, 'num_real': 20, 'num_generated': 7},
  }
  results['cross'] = {'all': row | {'pattern_fidelity': 0.0625}, 'other_camera': row}
  lines = [line.split() for line in image_table(results).split('\n')]
  assert lines[0][-6:] == ['truth', 'images', 'PSNR/dB', 'SSIM', 'colour/dE', 'pattern']
  assert lines[1][-5:] == ['7', '21.50', '0.800', '12.25', '0.062']
  assert lines[2] == ['other', 'camera', '7', '21.50', '0.800', '12.25', '-']
  assert lines[-6:-4] == [['cross', 'images', 'in', 'the', "person's", 'clothes', '-'], ['real', 'images', '0.350']]
  assert lines[-3] == ['cross', 'images', '0.1250'] and '8 dimensions' in ' '.join(lines[-4])
