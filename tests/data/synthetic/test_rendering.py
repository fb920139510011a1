"""Rendered images follow appearance and structure."""

import dataclasses

import numpy as np
from PIL import Image, ImageFilter
import pytest

from dgnet_jax.data.synthetic.people import (
  BAGS,
  FACINGS,
  FAMILY_SIZE,
  HEADS,
  NUM_CAMERAS,
  OCCLUDERS,
  PATTERNS,
  Body,
  sample_appearance,
  sample_body,
  sample_junk_structure,
  sample_people,
  sample_structure,
)
from dgnet_jax.data.synthetic.rendering import render


def plain_image(**changes):
  """Returns a complete person without a bag, from the front, centred, not occluded."""
  structure = sample_structure(np.random.default_rng(7), 1, Body(build=1.0, head='short_hair', bag='none'))
  place = dict(facing='front', turn=0.0, centre_x=0.5, foot_y=0.97, height=0.88, occluder='none')
  return dataclasses.replace(structure, **(place | changes))


def person_mask(appearance, structure, size):
  """Returns where the person and the ground shadow are: the pixels that differ from the empty scene, and a margin.

  The margin of one pixel covers pixels of the person that happen to look like the background.
  """
  without = render(appearance, dataclasses.replace(structure, centre_x=-5.0), size)
  mask = Image.fromarray((render(appearance, structure, size) != without).any(axis=-1))
  return np.asarray(mask.convert('L').filter(ImageFilter.MaxFilter(3))) > 0


@pytest.mark.parametrize('size', [(128, 64), (64, 32), (70, 40), (32, 200)])
def test_render_is_deterministic_at_any_size(size):
  rng = np.random.default_rng(0)
  person, structure = sample_appearance(rng), sample_structure(rng, 3, sample_body(rng))
  first = render(person, structure, size)
  assert first.shape == (*size, 3) and first.dtype == np.uint8
  np.testing.assert_array_equal(first, render(person, structure, size))


def test_every_sampled_image_renders_and_differs():
  rng = np.random.default_rng(1)
  images = []
  for index in range(60):
    structure = sample_structure(rng, 1 + index % NUM_CAMERAS, sample_body(rng))
    structure = dataclasses.replace(structure, occluder=OCCLUDERS[index % len(OCCLUDERS)], facing=FACINGS[index % 4])
    images.append(render(sample_appearance(rng), structure, (64, 32)))
    junk = sample_junk_structure(rng, 1 + index % NUM_CAMERAS, sample_body(rng))
    images.append(render(sample_appearance(rng), junk, (64, 32)))
  assert len({image.tobytes() for image in images}) == len(images)


def test_unknown_camera_is_an_error():
  with pytest.raises(ValueError, match='camera=7'):
    render(sample_appearance(np.random.default_rng(0)), plain_image(camera=7))


@pytest.mark.parametrize('field', ['skin', 'top_colour', 'bottom_colour', 'shoe_colour', 'hair_colour'])
@pytest.mark.parametrize('camera', [1, 5])
def test_changed_colour_changes_only_the_person(field, camera):
  person = dataclasses.replace(sample_appearance(np.random.default_rng(3)), bottom='shorts')
  structure = plain_image(camera=camera)
  colour = tuple(255 - value for value in getattr(person, field))
  other = dataclasses.replace(person, **{field: colour})
  changed = (render(person, structure) != render(other, structure)).any(axis=-1)
  assert changed.sum() > 15
  assert not (changed & ~person_mask(person, structure, (128, 64))).any()


def test_top_and_bottom_are_at_chest_and_thighs():
  person = dataclasses.replace(sample_appearance(np.random.default_rng(4)), bottom='trousers')
  person = dataclasses.replace(person, top_colour=(200, 20, 20), pattern='plain', bottom_colour=(20, 20, 200))
  image = render(person, plain_image()).astype(int)
  chest, thigh = image[45:55, 28:37].mean(axis=(0, 1)), image[72:78, 24:40].mean(axis=(0, 1))
  assert chest.argmax() == 0 and chest[0] > 2 * chest[2]
  assert thigh.argmax() == 2 and thigh[2] > 2 * thigh[0]


@pytest.mark.parametrize('facing', FACINGS)
def test_patterns_differ_at_the_default_training_size(facing):
  person = sample_appearance(np.random.default_rng(5))
  person = dataclasses.replace(person, top_colour=(240, 240, 240), top_second_colour=(30, 40, 160))
  structure = plain_image(facing=facing, phase=0.2)
  images = [render(dataclasses.replace(person, pattern=name), structure, (64, 32)).astype(int) for name in PATTERNS]
  for index, image in enumerate(images):
    for other in images[index + 1 :]:
      # From the side a logo is invisible, so the top looks plain.
      if facing in ('front', 'back') or not (image is images[0] and other is images[-1]):
        assert (np.abs(image - other).max(axis=-1) > 40).sum() > 12


def test_structure_changes_pose_and_background():
  person = sample_appearance(np.random.default_rng(6))
  masks = [person_mask(person, plain_image(facing=facing, phase=0.25, stride=0.5), (128, 64)) for facing in FACINGS]
  assert all((masks[0] != mask).sum() > 100 for mask in (masks[1], masks[3]))
  gone = plain_image(centre_x=-5.0)
  scenes = [render(person, dataclasses.replace(gone, camera=camera)) for camera in range(1, NUM_CAMERAS + 1)]
  for index, scene in enumerate(scenes):
    for other in scenes[index + 1 :]:
      assert np.abs(scene.mean(axis=-1) - other.mean(axis=-1)).mean() > 15
  people = [person for person, _ in sample_people(np.random.default_rng(8), 2)]
  # An empty scene does not depend on the person.
  np.testing.assert_array_equal(render(people[0], gone), render(people[1], gone))


def test_smaller_image_looks_like_the_larger_one_shrunk():
  rng = np.random.default_rng(9)
  for camera in range(1, NUM_CAMERAS + 1):
    person, structure = sample_appearance(rng), sample_structure(rng, camera, sample_body(rng))
    large = Image.fromarray(render(person, structure, (128, 64))).resize((32, 64), Image.Resampling.BOX)
    error = np.abs(np.asarray(large, dtype=int) - render(person, structure, (64, 32)))
    assert error.mean() < 5


def test_lookalikes_differ_in_one_property():
  people = sample_people(np.random.default_rng(10), 4 * FAMILY_SIZE)
  assert len(set(people)) == len(people)
  for start in (0, 2 * FAMILY_SIZE):
    first = people[start]
    *dressed, other_body = people[start + 1 : start + FAMILY_SIZE]
    changes = [
      [name for name, value in vars(lookalike.appearance).items() if value != getattr(first.appearance, name)]
      for lookalike in dressed
    ]
    assert changes == [['top_colour'], ['bottom_colour'], ['pattern']]
    assert all(lookalike.body == first.body for lookalike in dressed)
    assert other_body.appearance == first.appearance
    assert all(value != getattr(first.body, name) for name, value in vars(other_body.body).items())


def test_body_is_visible_in_grey():
  look = sample_appearance(np.random.default_rng(11))
  average = plain_image(facing='back')
  area = person_mask(look, average, (128, 64)).sum()
  heads = [{'head': name} for name in HEADS if name not in ('short_hair', 'bun')]  # a bun covers only a few pixels
  bags = [{'bag': name} for name in BAGS if name != 'none']
  for change in [{'build': 1.3}, *heads, *bags]:
    other = dataclasses.replace(average, body=dataclasses.replace(average.body, **change))
    gray = [render(look, structure).mean(axis=-1) for structure in (average, other)]
    assert (np.abs(gray[0] - gray[1]) > 20).sum() > 60
    if 'build' in change:
      assert 1.12 * area < person_mask(look, other, (128, 64)).sum() < 1.3 * area
