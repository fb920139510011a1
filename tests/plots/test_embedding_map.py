"""Maps of embeddings."""

import numpy as np
from PIL import Image

from dgnet_jax.plots.embedding_map import COLORS, MARKERS, MAX_GROUPS, Groups, draw_embedding_map, spread_places

PLACES = np.random.default_rng(0).normal(size=(60, 2)) * 20


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image.convert('RGB')).astype(int)


def draw(path, **arguments):
  groups = Groups('by identity', ['$a$', '<b>', 'x' * 50], np.arange(60) % 4 - 1)
  return pixels(draw_embedding_map(path, PLACES, [groups], title='a $ map', **arguments))


def count(picture, color):
  wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
  return (picture == wanted).all(axis=-1).sum()


def test_groups_have_their_colours_and_the_others_are_grey(tmp_path):
  picture = draw(tmp_path / 'a.png')
  assert all(count(picture, color) > 500 for color in COLORS[:3])
  assert all(count(picture, color) == 0 for color in COLORS[3:])
  assert count(picture, '#cccccc') > 500


def test_thumbnails_get_a_panel(tmp_path):
  images = np.zeros((3, 16, 8, 3), np.uint8)
  images[..., 0] = 254
  without = draw(tmp_path / 'a.png')
  picture = draw(tmp_path / 'b.png', thumbnails=images, thumbnail_places=PLACES[:3])
  assert picture.shape[1] == 2 * without.shape[1]
  assert count(picture, '#fe0000') > 1_000 and count(without, '#fe0000') == 0


def test_no_two_groups_look_alike():
  looks = {(i % len(COLORS), (i + i // len(COLORS)) % len(MARKERS)) for i in range(MAX_GROUPS)}
  assert len(looks) == MAX_GROUPS


def test_thumbnails_do_not_overlap():
  chosen = spread_places(PLACES, 20)
  assert 3 < len(chosen) <= 20 and len(spread_places(PLACES, 2)) == 2 and len(spread_places(PLACES, 0)) == 0
  same = np.zeros((5, 2))
  assert len(spread_places(same, 5)) <= 5
  distances = np.abs(PLACES[chosen][:, None] - PLACES[chosen]) / np.ptp(PLACES, axis=0)
  apart = distances.max(axis=-1)[~np.eye(len(chosen), dtype=bool)]
  assert apart.min() > 0.05
