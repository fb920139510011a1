"""Sheets: every image is in its place and has the right frame."""

import numpy as np
import pytest

from dgnet_jax.plots import sheets

HEIGHT, WIDTH = 192, 96  # drawn without enlargement, so pixels can be compared


def flat_images(*shape):
  """Images of one random colour each, u8[*shape, H, W, 3]."""
  color = np.random.default_rng(len(shape)).integers(60, 200, (*shape, 1, 1, 3), dtype=np.uint8)
  return np.broadcast_to(color, (*shape, HEIGHT, WIDTH, 3)).copy()


def contains(sheet, image, row, column, columns):
  """Returns True if the sheet shows the flat image in this cell of its grid."""
  mask = (sheet == image[0, 0]).all(axis=-1)
  if not mask.sum() >= image.shape[0] * image.shape[1]:
    return False
  ys, xs = np.nonzero(mask)
  middle_y, middle_x = np.median(ys), np.median(xs)
  cell_width = WIDTH + 2 * sheets.MARGIN
  left = sheet.shape[1] - columns * cell_width
  return int((middle_x - left) // cell_width) == column and int(middle_y // (HEIGHT + 2 * sheets.MARGIN)) == row


def test_swap_sheet_has_donors_at_its_edges():
  structures, appearances, grid = flat_images(2), flat_images(3, 1)[:, 0], flat_images(2, 3, 1)[:, :, 0]
  sheet = sheets.swap_sheet(structures, appearances, grid)
  assert sheet.dtype == np.uint8
  for i in range(2):
    assert contains(sheet, structures[i], i + 1, 0, 4)
    for j in range(3):
      assert contains(sheet, grid[i, j], i + 1, j + 1, 4)
  for j in range(3):
    assert contains(sheet, appearances[j], 0, j + 1, 4)


def test_image_grid_rows_and_columns():
  rows = {'original': flat_images(4), 'cross': flat_images(4, 1)[:, 0]}
  sheet = sheets.image_grid(rows)
  for row, images in enumerate(rows.values()):
    for column, image in enumerate(images):
      assert contains(sheet, image, row, column, 4)


def test_small_images_are_enlarged():
  small = np.zeros((2, 64, 32, 3), np.uint8)
  sheet = sheets.image_grid({'original': small})
  assert (sheet == 0).all(axis=-1).sum() >= 2 * 192 * 96


def test_ground_truth_sheet_shows_psnr_and_pattern_fidelity():
  rows = {'generated': flat_images(2), 'ground truth': flat_images(2, 1)[:, 0]}

  def sheet(psnr, fidelity):
    return sheets.ground_truth_sheet(rows, [12.3, psnr], [0.5, fidelity])

  first = sheet(45.6, 0.25)
  for other in (sheet(45.7, 0.25), sheet(45.6, 0.26), sheet(45.6, np.nan)):
    assert first.shape == other.shape and (first != other).any()
  np.testing.assert_array_equal(sheet(45.6, 0.251), first)


def test_ranked_sheet_frames_matches_green_and_others_red():
  queries, ranked = flat_images(1), flat_images(2, 1)[:, 0]
  label = ['id 1', 'camera 2']

  def sheet(is_match):
    return sheets.ranked_sheet(queries, [label], [ranked], [[label, label]], [is_match])

  def count(image, color):
    return int((image == color).all(axis=-1).sum())

  mixed = sheet([True, False])
  assert count(mixed, sheets.GREEN) == count(mixed, sheets.RED) == count(mixed, sheets.BLUE) > 1000
  green_x, red_x = (np.nonzero((mixed == c).all(axis=-1))[1].mean() for c in (sheets.GREEN, sheets.RED))
  assert green_x < red_x
  assert count(sheet([True, True]), sheets.RED) == 0
  assert count(sheet([None, None]), sheets.RED) == count(sheet([None, None]), sheets.GREEN) == 0


def test_ranked_sheet_accepts_rows_of_different_lengths():
  queries, ranked = flat_images(2), [flat_images(3), flat_images(1)]
  labels = [[['id 1']] * 3, [['id 1']]]
  sheet = sheets.ranked_sheet(queries, [['id 1'], ['id 2']], ranked, labels, [[True] * 3, [False]])
  assert sheet.shape[1] == 4 * (WIDTH + 2 * sheets.MARGIN)
  red_y, red_x = np.nonzero((sheet == sheets.RED).all(axis=-1))
  assert red_y.min() > sheet.shape[0] / 2 and red_x.max() < sheet.shape[1] / 2


def test_ranked_sheet_has_the_given_headings():
  queries, labels = flat_images(1), [[['id 1']] * 2]
  drawn = [
    sheets.ranked_sheet(queries, [['id 1']], [flat_images(2)], labels, [[False, True]], headings=headings)
    for headings in ((), ('1', '2'), ('1', 'first match'))
  ]
  np.testing.assert_array_equal(drawn[0], drawn[1])
  assert drawn[0].shape == drawn[2].shape and (drawn[0][: sheets.LINE] != drawn[2][: sheets.LINE]).any()


def test_mismatched_arguments_are_refused():
  images = flat_images(2)
  with pytest.raises(ValueError, match='grid'):
    sheets.swap_sheet(images, images, flat_images(2, 3))
  with pytest.raises(ValueError, match='dtype'):
    sheets.image_grid({'original': images / 255})
  with pytest.raises(ValueError, match='one shape'):
    sheets.image_grid({'original': images, 'cross': images[:1]})
  with pytest.raises(ValueError, match='does not fit'):
    sheets.ranked_sheet(images, [['a'], ['b']], [images], [[['a']] * 2], [[True, True]])
