"""Similarity of images of one identity, and of images of the same name."""

import shutil

import numpy as np
import pytest

from dgnet_jax.data.image_sets import read_image_set
from dgnet_jax.data.images import read_image
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation import image_quality
from dgnet_jax.reports import similarity
from dgnet_jax.reports.similarity import (
  common_size,
  compare_same_names,
  draw_identity_pairs,
  has_identity_pairs,
  ssim_within_identities,
)
from dgnet_jax.utils import progress
from tests.data.folders import write_image

SIZE_HW = (24, 16)
IDENTITY_PATTERN = '^(?P<identity>[a-z])'


def write(folder, names, seed=0):
  folder.mkdir(parents=True, exist_ok=True)
  for i, name in enumerate(names):
    write_image(folder / name, seed=seed + i, size_hw=SIZE_HW)
  return folder


def read(folder, pattern=''):
  return read_image_set(str(folder), identity_pattern=pattern)


def test_pairs_are_uniform_over_identities_and_their_pairs():
  identity = np.array([7, -1, 3, 0, 7, 0, -1, 5, 5, 7])
  first, second = draw_identity_pairs(identity, 4000, 1)
  assert (identity[first] == identity[second]).all() and (first != second).all()
  pairs, counts = np.unique(np.sort(np.stack([first, second]), axis=0), axis=1, return_counts=True)
  assert pairs.T.tolist() == [[0, 4], [0, 9], [4, 9], [7, 8]]  # identity 3 has one image
  np.testing.assert_allclose(counts / 4000, [1 / 6, 1 / 6, 1 / 6, 1 / 2], atol=0.03)
  np.testing.assert_array_equal(draw_identity_pairs(identity, 4000, 1), (first, second))
  assert (draw_identity_pairs(identity, 4000, 2)[0] != first).any()
  with pytest.raises(ValueError, match='no identity has two images'):
    draw_identity_pairs(np.array([1, 2, 0, 0, -1, -1]), 5, 0)
  assert has_identity_pairs(identity)
  assert not has_identity_pairs(np.array([1, 2, 0, 0, -1, -1])) and not has_identity_pairs(None)


def test_ssim_within_identities_is_the_mean_over_the_pairs(tmp_path):
  images = read(write(tmp_path, ['a1.png', 'a2.png', 'b1.png', 'c1.png', 'c2.png']), IDENTITY_PATTERN)
  result = ssim_within_identities(images, pairs=100, seed=3, size_hw=SIZE_HW)
  pixels = np.stack([read_image(path, SIZE_HW) for path in images.paths])
  of_identity = image_quality.ssim(pixels[[0, 3]], pixels[[1, 4]])
  first, _ = draw_identity_pairs(images.identity, 100, 3)
  values = of_identity[(first > 2).astype(int)]
  assert result['ssim'] == pytest.approx(values.mean(), rel=1e-12)
  assert result['standard_error'] == pytest.approx(values.std(ddof=1) / 10, rel=1e-12)
  assert (result['num_pairs'], result['num_identities']) == (100, 2)
  assert ssim_within_identities(images, pairs=1, seed=3, size_hw=SIZE_HW)['standard_error'] == 0


def test_equal_images_have_ssim_1(tmp_path):
  write(tmp_path, ['a1.png'])
  shutil.copy(tmp_path / 'a1.png', tmp_path / 'a2.png')
  assert ssim_within_identities(read(tmp_path, IDENTITY_PATTERN), pairs=3, seed=0, size_hw=SIZE_HW)[
    'ssim'
  ] == pytest.approx(1)


def test_images_of_the_same_name_are_compared(tmp_path):
  real = write(tmp_path / 'real', ['a.png', 'b.png', 'c.png', 'alone.png'])
  generated = write(tmp_path / 'generated', ['a.png', 'b.jpg', 'x.png', 'y.png'], seed=50)
  shutil.copy(real / 'c.png', generated / 'c.png')
  result = compare_same_names(read(real), read(generated), size_hw=SIZE_HW)
  images, ground_truth = (
    np.stack([read_image(str(folder / name), SIZE_HW) for name in names])
    for folder, names in ((generated, ['a.png', 'b.jpg', 'c.png']), (real, ['a.png', 'b.png', 'c.png']))
  )
  assert result['ssim'] == pytest.approx(image_quality.ssim(images, ground_truth).mean(), rel=1e-12)
  assert result['psnr'] == pytest.approx(image_quality.psnr(images[:2], ground_truth[:2]).mean(), rel=1e-12)
  counts = [result[f'num_{name}'] for name in ('images', 'equal', 'real_alone', 'generated_alone')]
  assert counts == [3, 1, 1, 2]
  assert compare_same_names(read(real), read(real), size_hw=SIZE_HW)['psnr'] is None


def test_common_size_is_requested_or_that_of_the_last_set(tmp_path):
  plain = read(write(tmp_path / 'plain', ['a.png', 'b.png']))
  mixed = write(tmp_path / 'mixed', ['a.png'])
  write_image(mixed / 'b.png', size_hw=(30, 16))
  assert common_size([read(mixed), plain], None) == SIZE_HW
  assert common_size([plain, read(mixed)], (32, 32)) == (32, 32)
  with pytest.raises(UserError, match='mixed: images of 24x16 to 30x16; choose .* --size=256x128'):
    common_size([plain, read(mixed)], None)
  with pytest.raises(UserError, match='64x10 is smaller than the 11x11 window'):
    common_size([plain], (64, 10))


def test_progress_is_logged(tmp_path, monkeypatch, lines):
  images = read(write(tmp_path, ['a1.png', 'a2.png']), IDENTITY_PATTERN)
  monkeypatch.setattr(progress, 'SECONDS_BETWEEN_LINES', -1.0)
  monkeypatch.setattr(similarity, 'PAIRS_PER_BATCH', 2)
  ssim_within_identities(images, pairs=5, seed=0, size_hw=SIZE_HW)
  assert len(lines) == 3 and f'SSIM within identities of {tmp_path}: 4/5' in lines[1] and 'pairs/s' in lines[1]
