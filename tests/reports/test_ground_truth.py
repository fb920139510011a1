"""The parts of the comparison with the ground truth; tests/reports/test_evaluation.py makes a complete one."""

import numpy as np
import pytest

from dgnet_jax.reports.ground_truth import KINDS, draw_donors, feature_distances, group_means, image_table


def test_donors_are_balanced_and_of_the_right_identities():
  identity = np.array([1, 0, -1, 2, 2, 2, 1, 9, 9])
  donors = draw_donors(identity, 70)
  assert (identity[donors.structure] != identity[donors.other]).all()
  assert (identity[donors.structure] == identity[donors.same]).all() and (donors.structure != donors.same).all()
  assert all((identity[index] > 0).all() for index in (donors.structure, donors.other, donors.same))
  images = np.flatnonzero(identity > 0)
  np.testing.assert_array_equal(np.bincount(donors.structure)[images], 10)
  assert set(donors.other) == set(donors.same) == set(images)
  np.testing.assert_array_equal(draw_donors(identity, 70).other, donors.other)


def test_several_images_of_a_donor_begin_with_the_one_of_the_cross_image():
  identity = np.array([1, 1, 1, 1, 1, 2, 2, 2, -1, 0])
  donors = draw_donors(identity, 30)
  assert donors.several.shape == (30, 3)  # identity 2 has three
  np.testing.assert_array_equal(donors.several[:, 0], donors.other)
  assert (identity[donors.several] == identity[donors.other][:, None]).all()
  assert all(len(set(row)) == 3 for row in donors.several.tolist())


def test_group_means_of_known_values():
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


def test_feature_distances_of_shifted_gaussians(lines):
  rng = np.random.default_rng(0)
  real, true = rng.normal(size=(4000, 3)), rng.normal(size=(4000, 3))
  result = feature_distances(real=real, generated=true + [3, 4, 0], ground_truth=true)
  assert result['generated'] == pytest.approx(25, abs=0.5)
  assert max(result['ground_truth'], result['real_halves']) < 0.02
  assert (result['dimensions'], result['num_real'], result['num_generated']) == (3, 4000, 4000)
  assert not lines


def test_too_few_features_for_a_covariance_are_reported(lines):
  features = np.random.default_rng(0).normal(size=(40, 3))
  feature_distances(real=features[:6], generated=features, ground_truth=features)
  assert len(lines) == 1 and '40 generated images and 3 in half of the real ones are too few' in lines[0]


def test_image_table_has_a_row_for_each_group():
  row = {'count': 7, 'psnr': 21.5, 'ssim': 0.8, 'colour_error': 12.25, 'pattern_count': 0}
  results = {kind: {'all': row} for kind in KINDS} | {
    'diversity': {'generated': None, 'real': 0.35},
    'teacher_frechet_distance': dict.fromkeys(('generated', 'ground_truth', 'real_halves'), 0.125)
    | {'dimensions': 8, 'num_real': 20, 'num_generated': 7},
  }
  results['cross'] = {'all': row | {'pattern_fidelity': 0.0625}, 'other_camera': row}
  rows = [line.split() for line in image_table(results).split('\n')]
  assert rows[0][-6:] == ['truth', 'images', 'PSNR/dB', 'SSIM', 'colour/dE', 'pattern']
  assert rows[1][-5:] == ['7', '21.50', '0.800', '12.25', '0.062']
  assert rows[2] == ['other', 'camera', '7', '21.50', '0.800', '12.25', '-']
  assert rows[-6:-4] == [['cross', 'images', 'in', 'its', 'clothes', '-'], ['real', 'images', '0.350']]
  assert rows[-3] == ['cross', 'images', '0.1250'] and '8 dimensions' in ' '.join(rows[-4])
