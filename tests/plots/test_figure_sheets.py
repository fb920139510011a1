"""Sheets of the figures: every image is in its place, and colours follow the maps."""

import numpy as np
import pytest

from dgnet_jax.plots import figure_sheets
from dgnet_jax.plots.canvas import BLUE, MARGIN, shortened, text_width

HEIGHT, WIDTH = 192, 96  # drawn without enlargement


def flat(*shape, seed=0):
  """Images of one random colour each."""
  color = np.random.default_rng(seed).integers(60, 200, (*shape, 1, 1, 3), dtype=np.uint8)
  return np.broadcast_to(color, (*shape, HEIGHT, WIDTH, 3)).copy()


def center(sheet, image):
  """x and y of the centre of the part of the sheet that has the flat image's colour."""
  y, x = np.nonzero((sheet == image[0, 0]).all(axis=-1))
  assert len(y) >= image.shape[0] * image.shape[1], 'not on the sheet'
  return np.median(x), np.median(y)


def test_interpolation_runs_from_left_to_right():
  fixed, ends, frames = flat(2), flat(2, 2, seed=1), flat(2, 3, seed=2)
  sheet = figure_sheets.interpolation_sheet(['clothes', 'pose'], fixed, ends, frames, [0, 0.5, 1])
  for row in range(2):
    images = [fixed[row], ends[row, 0], *frames[row], ends[row, 1]]
    x = [center(sheet, image)[0] for image in images]
    y = [center(sheet, image)[1] for image in images]
    assert x == sorted(x) and len(set(x)) == len(x) and max(y) - min(y) < 2
  assert center(sheet, fixed[0])[1] < center(sheet, fixed[1])[1]
  with pytest.raises(ValueError, match='fixed.shape'):
    figure_sheets.interpolation_sheet(['clothes', 'pose'], fixed[:1], ends, frames, [0, 0.5, 1])
  with pytest.raises(ValueError, match='kinds='):
    figure_sheets.interpolation_sheet(['clothes'], fixed, ends, frames, [0, 0.5, 1])


def test_generated_images_are_below_their_donors():
  structure, donors, generated = flat(1)[0], flat(5, seed=1), flat(5, seed=2)
  sheet = figure_sheets.appearances_sheet(structure, donors, generated, 3)
  for donor, image in zip(donors, generated, strict=True):
    (donor_x, donor_y), (x, y) = center(sheet, donor), center(sheet, image)
    assert abs(donor_x - x) < 2 and 190 < y - donor_y < 230
  assert center(sheet, donors[3])[1] > center(sheet, generated[2])[1]
  assert (sheet == BLUE).all(axis=-1).any()
  with pytest.raises(ValueError, match='generated.shape'):
    figure_sheets.appearances_sheet(structure, donors, generated[:2], 3)


def test_heat_colours_high_values_only():
  images = np.full((1, 16, 8, 3), 100, np.uint8)
  heat = np.zeros((1, 4, 2), np.float32)
  assert (figure_sheets.overlay_heat(images, heat) == 100).all()
  heat[0, 0, 0] = 1
  overlaid = figure_sheets.overlay_heat(images, heat)[0].astype(int)
  assert overlaid[0, 0].max() > 200 and (overlaid[-1, -1] == 100).all()


def test_activation_sheet_has_images_above_their_maps():
  images = flat(3)
  sheet = figure_sheets.activation_sheet(images, np.random.default_rng(0).random((3, HEIGHT, WIDTH), np.float32))
  for image in images:
    assert center(sheet, image)[1] < sheet.shape[0] / 2


def test_activation_is_stretched_and_its_range_is_said(monkeypatch):
  shown, captions = [], []
  monkeypatch.setattr(figure_sheets, 'overlay_heat', lambda images, heat: shown.append(heat) or images)
  drawn = figure_sheets.Canvas.image
  monkeypatch.setattr(
    figure_sheets.Canvas,
    'image',
    lambda *args, caption=(), **more: captions.extend(caption) or drawn(*args, caption=caption, **more),
  )
  maps = np.full((3, HEIGHT, WIDTH), 9, np.float32)
  maps[:, :, WIDTH // 2 :] = 10
  figure_sheets.activation_sheet(flat(3), maps * np.float32([1, 100, 0])[:, None, None])
  np.testing.assert_allclose(shown[0], np.stack([maps[0] - 9, maps[0] - 9, 0 * maps[0]]), atol=1e-6)
  assert captions == ['90% to 100%', '90% to 100%', '0% to 100%', 'of the highest']


def test_colour_bar_has_the_highest_colour_at_the_top():
  sheet = figure_sheets.activation_sheet(flat(1), np.random.default_rng(0).random((1, HEIGHT, WIDTH), np.float32))
  bar = sheet[sheet.shape[0] // 2 :, -(WIDTH + 2 * MARGIN) : -WIDTH].astype(int)
  coloured = np.flatnonzero((bar[:, -2] != 255).any(axis=-1))
  top, bottom = bar[coloured[0], -2], bar[coloured[0] + HEIGHT - 1, -2]
  assert np.ptp(top) > 40 and np.ptp(bottom) < 10 and bottom[0] == pytest.approx(128, abs=3)


def test_long_names_are_shortened_in_the_middle():
  assert shortened('short.jpg', 200) == 'short.jpg'
  shown = shortened('a_very_long_name_of_a_file_0001.jpg', 100)
  assert shown.startswith('a_') and shown.endswith('.jpg') and '…' in shown and text_width(shown) <= 100
