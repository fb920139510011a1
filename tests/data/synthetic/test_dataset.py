"""The built-in pedestrians: images follow appearance and structure, and the data set is a fair Market-1501."""

import collections
import dataclasses
import json
import os
import re

import numpy as np
from PIL import Image, ImageFilter
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.data.synthetic import dataset
from dgnet_jax.data.synthetic.dataset import image_truth, render, write_dataset
from dgnet_jax.data.synthetic.people import (
  BAGS,
  FACINGS,
  FAMILY_SIZE,
  HEADS,
  NUM_CAMERAS,
  OCCLUDERS,
  PATTERNS,
  Body,
  draw_appearance,
  draw_body,
  draw_junk_structure,
  draw_people,
  draw_structure,
)
from dgnet_jax.errors import UserError

MARKET_NAME = re.compile(r'^(-?\d+)_c(\d)s(\d)_(\d+)_(\d+)\.jpg$')


def small_config(**changes):
  config = default_config().data.synthetic
  sizes = dict(num_train_identities=5, num_test_identities=4, images_per_identity=8, num_distractors=3, num_junk=2)
  config.update(sizes | dict(image_size_hw=(64, 32)) | changes)
  return config


@pytest.fixture(scope='module')
def small_root(tmp_path_factory):
  root = tmp_path_factory.mktemp('synthetic') / 'deep' / 'people'
  write_dataset(root, small_config())
  return root


def ask(path):
  """Folder, identity and camera of a relative path."""
  folder, name = path.split('/')
  match = MARKET_NAME.match(name)
  assert match, path
  return folder, int(match[1]), int(match[2])


def plain_image(**changes):
  """A whole person without a bag, front, in the middle, unhidden."""
  usual = draw_structure(np.random.default_rng(7), 1, Body(build=1.0, head='short_hair', bag='none'))
  place = dict(facing='front', turn=0.0, centre_x=0.5, foot_y=0.97, height=0.88, occluder='none')
  return dataclasses.replace(usual, **(place | changes))


def person_mask(appearance, structure, size):
  """Where the person and the ground shadow are: what changes when they leave the image, and a pixel around.

  The margin also covers single pixels of the person that happen to look like what is behind.
  """
  without = render(appearance, dataclasses.replace(structure, centre_x=-5.0), size)
  mask = Image.fromarray((render(appearance, structure, size) != without).any(axis=-1))
  return np.asarray(mask.convert('L').filter(ImageFilter.MaxFilter(3))) > 0


@pytest.mark.parametrize('size', [(128, 64), (64, 32), (70, 40), (32, 200)])
def test_render_is_deterministic_at_any_size(size):
  rng = np.random.default_rng(0)
  person, structure = draw_appearance(rng), draw_structure(rng, 3, draw_body(rng))
  first = render(person, structure, size)
  assert first.shape == (*size, 3) and first.dtype == np.uint8
  np.testing.assert_array_equal(first, render(person, structure, size))


def test_everything_drawable_renders():
  rng = np.random.default_rng(1)
  images = []
  for index in range(60):
    structure = draw_structure(rng, 1 + index % NUM_CAMERAS, draw_body(rng))
    structure = dataclasses.replace(structure, occluder=OCCLUDERS[index % len(OCCLUDERS)], facing=FACINGS[index % 4])
    images.append(render(draw_appearance(rng), structure, (64, 32)))
    junk = draw_junk_structure(rng, 1 + index % NUM_CAMERAS, draw_body(rng))
    images.append(render(draw_appearance(rng), junk, (64, 32)))
  assert len({image.tobytes() for image in images}) == len(images)


def test_render_names_an_impossible_camera():
  with pytest.raises(ValueError, match='camera=7'):
    render(draw_appearance(np.random.default_rng(0)), plain_image(camera=7))


@pytest.mark.parametrize('field', ['skin', 'top_colour', 'bottom_colour', 'shoe_colour', 'hair_colour'])
@pytest.mark.parametrize('camera', [1, 5])
def test_a_changed_colour_changes_the_person_only(field, camera):
  person = dataclasses.replace(draw_appearance(np.random.default_rng(3)), bottom='shorts')
  structure = plain_image(camera=camera)
  colour = tuple(255 - value for value in getattr(person, field))
  other = dataclasses.replace(person, **{field: colour})
  changed = (render(person, structure) != render(other, structure)).any(axis=-1)
  assert changed.sum() > 15
  assert not (changed & ~person_mask(person, structure, (128, 64))).any()


def test_top_and_bottom_lie_where_they_should():
  person = dataclasses.replace(draw_appearance(np.random.default_rng(4)), bottom='trousers')
  person = dataclasses.replace(person, top_colour=(200, 20, 20), pattern='plain', bottom_colour=(20, 20, 200))
  image = render(person, plain_image()).astype(int)
  chest, thigh = image[45:55, 28:37].mean(axis=(0, 1)), image[72:78, 24:40].mean(axis=(0, 1))
  assert chest.argmax() == 0 and chest[0] > 2 * chest[2]
  assert thigh.argmax() == 2 and thigh[2] > 2 * thigh[0]


@pytest.mark.parametrize('facing', FACINGS)
def test_patterns_are_told_apart_at_the_default_training_size(facing):
  person = draw_appearance(np.random.default_rng(5))
  person = dataclasses.replace(person, top_colour=(240, 240, 240), top_second_colour=(30, 40, 160))
  structure = plain_image(facing=facing, phase=0.2)
  images = [render(dataclasses.replace(person, pattern=name), structure, (64, 32)).astype(int) for name in PATTERNS]
  for index, image in enumerate(images):
    for other in images[index + 1 :]:
      # A logo is hidden from the side, where its bearer looks plain.
      if facing in ('front', 'back') or not (image is images[0] and other is images[-1]):
        assert (np.abs(image - other).max(axis=-1) > 40).sum() > 12


def test_structure_alone_changes_pose_and_background():
  person = draw_appearance(np.random.default_rng(6))
  masks = [person_mask(person, plain_image(facing=facing, phase=0.25, stride=0.5), (128, 64)) for facing in FACINGS]
  assert all((masks[0] != mask).sum() > 100 for mask in (masks[1], masks[3]))
  gone = plain_image(centre_x=-5.0)
  scenes = [render(person, dataclasses.replace(gone, camera=camera)) for camera in range(1, NUM_CAMERAS + 1)]
  for index, scene in enumerate(scenes):
    for other in scenes[index + 1 :]:
      assert np.abs(scene.mean(axis=-1) - other.mean(axis=-1)).mean() > 15
  people = [person for person, _ in draw_people(np.random.default_rng(8), 2)]
  # Without a person in the image nothing tells who it would have been.
  np.testing.assert_array_equal(render(people[0], gone), render(people[1], gone))


def test_a_smaller_image_is_the_larger_one_shrunk():
  rng = np.random.default_rng(9)
  for camera in range(1, NUM_CAMERAS + 1):
    person, structure = draw_appearance(rng), draw_structure(rng, camera, draw_body(rng))
    large = Image.fromarray(render(person, structure, (128, 64))).resize((32, 64), Image.Resampling.BOX)
    error = np.abs(np.asarray(large, dtype=int) - render(person, structure, (64, 32)))
    assert error.mean() < 5


def test_near_twins_differ_in_one_thing():
  people = draw_people(np.random.default_rng(10), 4 * FAMILY_SIZE)
  assert len(set(people)) == len(people)
  for start in (0, 2 * FAMILY_SIZE):
    first = people[start]
    *dressed, other_body = people[start + 1 : start + FAMILY_SIZE]
    changes = [
      [name for name, value in vars(twin.appearance).items() if value != getattr(first.appearance, name)]
      for twin in dressed
    ]
    assert changes == [['top_colour'], ['bottom_colour'], ['pattern']]
    assert all(twin.body == first.body for twin in dressed)
    assert other_body.appearance == first.appearance
    assert all(value != getattr(first.body, name) for name, value in vars(other_body.body).items())


def test_a_body_shows_in_grey():
  look = draw_appearance(np.random.default_rng(11))
  usual = plain_image(facing='back')
  area = person_mask(look, usual, (128, 64)).sum()
  heads = [{'head': name} for name in HEADS if name not in ('short_hair', 'bun')]  # a bun is a few pixels
  bags = [{'bag': name} for name in BAGS if name != 'none']
  for change in [{'build': 1.3}, *heads, *bags]:
    other = dataclasses.replace(usual, body=dataclasses.replace(usual.body, **change))
    gray = [render(look, structure).mean(axis=-1) for structure in (usual, other)]
    assert (np.abs(gray[0] - gray[1]) > 20).sum() > 60
    if 'build' in change:
      assert 1.12 * area < person_mask(look, other, (128, 64)).sum() < 1.3 * area


def test_folders_and_names_are_those_of_market1501(small_root):
  config = small_config()
  files = {str(path.relative_to(small_root)).replace(os.sep, '/') for path in small_root.rglob('*.jpg')}
  truth = image_truth(small_root)
  assert files == set(truth)
  assert sorted(path.name for path in small_root.iterdir()) == [
    'bounding_box_test', 'bounding_box_train', 'gt_bbox', 'query', 'truth.json'
  ]  # fmt: skip
  people = collections.defaultdict(collections.Counter)
  for path, (_, structure) in truth.items():
    folder, identity, camera = ask(path)
    assert camera == structure.camera
    people[folder][identity] += 1
  assert people['bounding_box_train'] == {identity: config.images_per_identity for identity in range(1, 6)}
  test = set(range(6, 10))
  assert set(people['query']) == set(people['gt_bbox']) == test
  assert set(people['bounding_box_test']) == test | {0, -1}
  assert people['bounding_box_test'][0] == config.num_distractors
  assert people['bounding_box_test'][-1] == config.num_junk
  assert all(people['query'][person] + people['bounding_box_test'][person] == 8 for person in test)


def test_an_identity_is_an_appearance_and_a_body(small_root):
  looks = collections.defaultdict(set)
  for path, (appearance, structure) in image_truth(small_root).items():
    _, identity, _ = ask(path)
    if identity > 0:
      looks[identity].add((appearance, structure.body))
  assert all(len(people) == 1 for people in looks.values())
  assert len(set.union(*looks.values())) == len(looks) == 9


@pytest.mark.parametrize('images_per_identity', [2, 3, 5, 8])
def test_every_query_has_a_match_by_another_camera(tmp_path, images_per_identity):
  config = small_config(images_per_identity=images_per_identity, image_size_hw=(16, 8))
  write_dataset(tmp_path / 'people', config)
  seen = collections.defaultdict(set)
  for path in image_truth(tmp_path / 'people'):
    folder, identity, camera = ask(path)
    seen[folder, identity].add(camera)
  for identity in range(6, 10):
    cameras = seen['query', identity]
    assert cameras and seen['gt_bbox', identity] == cameras
    assert all(seen['bounding_box_test', identity] - {camera} for camera in cameras)


def test_as_many_cameras_see_a_person_as_asked(tmp_path):
  config = small_config(cameras_per_identity=(2, 3), image_size_hw=(16, 8))
  write_dataset(tmp_path / 'people', config)
  seen = collections.defaultdict(set)
  for path in image_truth(tmp_path / 'people'):
    _, identity, camera = ask(path)
    seen[identity].add(camera)
  assert {len(seen[identity]) for identity in range(1, 10)} == {2, 3}


def test_the_manifest_renders_the_stored_images(small_root):
  for path, (appearance, structure) in image_truth(small_root).items():
    with Image.open(small_root / path) as stored:
      assert stored.size == (32, 64)
      error = np.asarray(stored, dtype=float) - render(appearance, structure, (64, 32))
    assert np.sqrt((error**2).mean()) < 4, path


def test_the_data_set_is_a_function_of_its_settings(small_root, tmp_path):
  write_dataset(tmp_path / 'again', small_config())
  write_dataset(tmp_path / 'other', small_config(seed=1))
  names = [path.relative_to(small_root) for path in small_root.rglob('*') if path.is_file()]
  assert all((tmp_path / 'again' / name).read_bytes() == (small_root / name).read_bytes() for name in names)
  assert image_truth(tmp_path / 'other') != image_truth(small_root)


def test_a_finished_folder_is_left_alone(tmp_path, monkeypatch, lines):
  lines.clear()
  root = tmp_path / 'people'
  root.mkdir()
  write_dataset(root, small_config(image_size_hw=(16, 8)))
  assert len(lines) == 1 and str(root) in lines[0]
  monkeypatch.setattr(dataset, 'render', lambda *_: pytest.fail('rendered again'))
  write_dataset(root, small_config(image_size_hw=[16, 8]))
  assert len(lines) == 1
  assert [path.name for path in tmp_path.iterdir()] == ['people']


def test_other_settings_are_refused_with_advice(small_root):
  with pytest.raises(UserError, match=r'seed 0 -> 5, num_junk 2 -> 9\); delete the folder'):
    write_dataset(small_root, small_config(seed=5, num_junk=9))


def test_a_folder_with_other_files_is_refused(tmp_path):
  (tmp_path / 'precious.txt').write_text('mine')
  with pytest.raises(UserError, match='holds other files'):
    write_dataset(tmp_path, small_config())
  with pytest.raises(UserError, match='is a file'):
    write_dataset(tmp_path / 'precious.txt', small_config())
  assert (tmp_path / 'precious.txt').read_text() == 'mine'


def test_a_failed_run_leaves_nothing(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError('No space left on device')

  monkeypatch.setattr(dataset, '_manifest_text', fail)
  with pytest.raises(UserError, match='No space left'):
    write_dataset(tmp_path / 'people', small_config(image_size_hw=(16, 8)))
  assert not list(tmp_path.iterdir())


def test_of_two_writers_at_once_one_wins(tmp_path, monkeypatch):
  config = small_config(image_size_hw=(16, 8))
  rename = os.rename

  def late(source, target):
    monkeypatch.setattr(os, 'rename', rename)
    write_dataset(target, config)
    rename(source, target)

  monkeypatch.setattr(os, 'rename', late)
  write_dataset(tmp_path / 'people', config)
  assert [path.name for path in tmp_path.iterdir()] == ['people']
  assert image_truth(tmp_path / 'people')


@pytest.mark.parametrize('text', ['{', '[]', '{"format": 1}'])
def test_a_damaged_manifest_is_named(tmp_path, text):
  (tmp_path / 'truth.json').write_text(text)
  with pytest.raises(UserError, match='truth.json'):
    image_truth(tmp_path)
  with pytest.raises(UserError, match='truth.json'):
    write_dataset(tmp_path, small_config())


def test_people_of_an_older_version_are_told_apart(tmp_path):
  write_dataset(tmp_path / 'people', small_config(image_size_hw=(16, 8)))
  path = tmp_path / 'people' / 'truth.json'
  manifest = json.loads(path.read_text())
  path.write_text(json.dumps({'format': 1, 'settings': manifest['settings'], 'people': manifest['looks']}))
  with pytest.raises(UserError, match='format 1 -> '):
    write_dataset(tmp_path / 'people', small_config(image_size_hw=(16, 8)))
  with pytest.raises(UserError, match='does not fit this version'):
    image_truth(tmp_path / 'people')


def test_a_missing_manifest_is_named(tmp_path):
  with pytest.raises(UserError, match='truth.json is missing'):
    image_truth(tmp_path / 'nowhere')
