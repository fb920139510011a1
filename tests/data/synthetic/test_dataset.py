"""The built-in data set: Market-1501's folders and names, its labels, its settings and its manifest."""

import collections
import json
import os
import re
import threading
import time

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.config.data_schema import SyntheticDataConfig
from dgnet_jax.data.synthetic import dataset
from dgnet_jax.data.synthetic.dataset import write_dataset
from dgnet_jax.data.synthetic.manifest import image_descriptions
from dgnet_jax.data.synthetic.rendering import render
from dgnet_jax.errors import UserError

MARKET_NAME = re.compile(r'^(-?\d+)_c(\d)s(\d)_(\d+)_(\d+)\.jpg$')


def small_config(**changes):
  sizes = dict(num_train_identities=5, num_test_identities=4, images_per_identity=8, num_distractors=3, num_junk=2)
  return SyntheticDataConfig(**(sizes | dict(image_size_hw=(64, 32)) | changes))


@pytest.fixture(scope='module')
def small_root(tmp_path_factory):
  root = tmp_path_factory.mktemp('synthetic') / 'deep' / 'people'
  write_dataset(root, small_config())
  return root


def parse(path):
  """Returns folder, identity and camera of a relative path."""
  folder, name = path.split('/')
  match = MARKET_NAME.match(name)
  assert match, path
  return folder, int(match[1]), int(match[2])


def test_folders_and_names_follow_market1501(small_root):
  config = small_config()
  files = {str(path.relative_to(small_root)).replace(os.sep, '/') for path in small_root.rglob('*.jpg')}
  descriptions = image_descriptions(small_root)
  assert files == set(descriptions)
  assert sorted(path.name for path in small_root.iterdir()) == [
    'bounding_box_test', 'bounding_box_train', 'gt_bbox', 'query', 'truth.json'
  ]  # fmt: skip
  counts = collections.defaultdict(collections.Counter)
  for path, (_, structure) in descriptions.items():
    folder, identity, camera = parse(path)
    assert camera == structure.camera
    counts[folder][identity] += 1
  assert counts['bounding_box_train'] == {identity: config.images_per_identity for identity in range(1, 6)}
  test = set(range(6, 10))
  assert set(counts['query']) == set(counts['gt_bbox']) == test
  assert set(counts['bounding_box_test']) == test | {0, -1}
  assert counts['bounding_box_test'][0] == config.num_distractors
  assert counts['bounding_box_test'][-1] == config.num_junk
  assert all(counts['query'][identity] + counts['bounding_box_test'][identity] == 8 for identity in test)


def test_identity_is_an_appearance_and_a_body(small_root):
  persons = collections.defaultdict(set)
  for path, (appearance, structure) in image_descriptions(small_root).items():
    _, identity, _ = parse(path)
    if identity > 0:
      persons[identity].add((appearance, structure.body))
  assert all(len(variants) == 1 for variants in persons.values())
  assert len(set.union(*persons.values())) == len(persons) == 9


@pytest.mark.parametrize('images_per_identity', [2, 3, 5, 8])
def test_every_query_has_a_match_by_another_camera(tmp_path, images_per_identity):
  config = small_config(images_per_identity=images_per_identity, image_size_hw=(16, 8))
  write_dataset(tmp_path / 'people', config)
  seen = collections.defaultdict(set)
  for path in image_descriptions(tmp_path / 'people'):
    folder, identity, camera = parse(path)
    seen[folder, identity].add(camera)
  for identity in range(6, 10):
    cameras = seen['query', identity]
    assert cameras and seen['gt_bbox', identity] == cameras
    assert all(seen['bounding_box_test', identity] - {camera} for camera in cameras)


def test_number_of_cameras_follows_the_config(tmp_path):
  config = small_config(cameras_per_identity=(2, 3), image_size_hw=(16, 8))
  write_dataset(tmp_path / 'people', config)
  seen = collections.defaultdict(set)
  for path in image_descriptions(tmp_path / 'people'):
    _, identity, camera = parse(path)
    seen[identity].add(camera)
  assert {len(seen[identity]) for identity in range(1, 10)} == {2, 3}


def test_descriptions_render_the_stored_images(small_root):
  for path, (appearance, structure) in image_descriptions(small_root).items():
    with Image.open(small_root / path) as stored:
      assert stored.size == (32, 64)
      error = np.asarray(stored, dtype=float) - render(appearance, structure, (64, 32))
    assert np.sqrt((error**2).mean()) < 4, path


def test_dataset_is_a_function_of_its_settings(small_root, tmp_path):
  write_dataset(tmp_path / 'again', small_config())
  write_dataset(tmp_path / 'other', small_config(seed=1))
  names = [path.relative_to(small_root) for path in small_root.rglob('*') if path.is_file()]
  assert all((tmp_path / 'again' / name).read_bytes() == (small_root / name).read_bytes() for name in names)
  assert image_descriptions(tmp_path / 'other') != image_descriptions(small_root)


def test_finished_folder_is_not_rendered_again(tmp_path, monkeypatch, lines):
  root = tmp_path / 'people'
  root.mkdir()
  write_dataset(root, small_config(image_size_hw=(16, 8)))
  assert len(lines) == 1 and str(root) in lines[0]
  monkeypatch.setattr(dataset, 'render', lambda *_: pytest.fail('rendered again'))
  write_dataset(root, small_config(image_size_hw=(16, 8)))
  assert len(lines) == 1
  assert [path.name for path in tmp_path.iterdir()] == ['people']


def test_other_settings_are_an_error(small_root):
  with pytest.raises(UserError, match=r'seed 0 -> 5, num_junk 2 -> 9\); delete the folder'):
    write_dataset(small_root, small_config(seed=5, num_junk=9))


def test_folder_with_other_files_is_an_error(tmp_path):
  (tmp_path / 'precious.txt').write_text('mine')
  with pytest.raises(UserError, match='contains other files'):
    write_dataset(tmp_path, small_config())
  with pytest.raises(UserError, match='is a file'):
    write_dataset(tmp_path / 'precious.txt', small_config())
  assert (tmp_path / 'precious.txt').read_text() == 'mine'


def test_failure_leaves_no_files(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError('No space left on device')

  monkeypatch.setattr(dataset, 'write_manifest', fail)
  with pytest.raises(UserError, match='No space left'):
    write_dataset(tmp_path / 'people', small_config(image_size_hw=(16, 8)))
  assert not list(tmp_path.iterdir())


def test_simultaneous_writers_leave_one_dataset(tmp_path, monkeypatch):
  config = small_config(image_size_hw=(16, 8))
  rename = os.rename

  def late(source, target):
    monkeypatch.setattr(os, 'rename', rename)
    write_dataset(target, config)
    rename(source, target)

  monkeypatch.setattr(os, 'rename', late)
  write_dataset(tmp_path / 'people', config)
  assert [path.name for path in tmp_path.iterdir()] == ['people']
  assert image_descriptions(tmp_path / 'people')


@pytest.mark.parametrize('text', ['{', '[]', '3', 'null', '[' * 9999, '{"format": 1}', '{"format": 3, "settings": []}'])
def test_damaged_manifest_is_an_error(tmp_path, text):
  (tmp_path / 'truth.json').write_text(text)
  with pytest.raises(UserError, match='truth.json'):
    image_descriptions(tmp_path)
  with pytest.raises(UserError, match='truth.json'):
    write_dataset(tmp_path, small_config())


@pytest.mark.parametrize(
  ('part', 'name', 'value'),
  [
    ('look', 'pattern', 'paisley'),
    ('look', 'skin', [1, 2]),
    ('look', 'skin', [1, 2, 256]),
    ('look', 'shoe_colour', 'red'),
    ('structure', 'camera', 7),
    ('structure', 'camera', True),
    ('structure', 'blur', 1e9),
    ('structure', 'blur', None),
    ('structure', 'turn', float('nan')),
    ('structure', 'noise_seed', -1),
    ('body', 'build', 0),
    ('body', 'bag', ['none']),
  ],
)
def test_what_cannot_be_drawn_is_named(tmp_path, part, name, value):
  write_dataset(tmp_path / 'people', small_config(image_size_hw=(16, 8)))
  path = tmp_path / 'people' / 'truth.json'
  manifest = json.loads(path.read_text())
  structure = next(iter(manifest['images'].values()))['structure']
  {'look': manifest['looks'][0], 'structure': structure, 'body': structure['body']}[part][name] = value
  path.write_text(json.dumps(manifest))
  with pytest.raises(UserError, match=f'truth.json: not of this version .{name}: '):
    image_descriptions(tmp_path / 'people')


def test_settings_of_any_length_give_a_short_message(tmp_path):
  settings = {f'{"x" * 1000}{number}': 'y' * 10_000 for number in range(1000)}
  (tmp_path / 'truth.json').write_text(json.dumps({'format': 3, 'settings': settings}))
  with pytest.raises(UserError, match='other settings') as error:
    write_dataset(tmp_path, small_config())
  assert len(str(error.value)) < 2000


def test_older_format_is_an_error(tmp_path):
  write_dataset(tmp_path / 'people', small_config(image_size_hw=(16, 8)))
  path = tmp_path / 'people' / 'truth.json'
  manifest = json.loads(path.read_text())
  path.write_text(json.dumps({'format': 1, 'settings': manifest['settings'], 'people': manifest['looks']}))
  with pytest.raises(UserError, match='format 1 -> '):
    write_dataset(tmp_path / 'people', small_config(image_size_hw=(16, 8)))
  with pytest.raises(UserError, match='not of this version'):
    image_descriptions(tmp_path / 'people')


def test_dataset_with_the_old_names_in_its_manifest_is_accepted(small_root, tmp_path, monkeypatch):
  root = tmp_path / 'people'
  write_dataset(root, small_config())
  manifest = json.loads((root / 'truth.json').read_text())
  manifest['photos'] = manifest.pop('images')
  manifest['settings']['photos_per_identity'] = manifest['settings'].pop('images_per_identity')
  (root / 'truth.json').write_text(json.dumps(manifest))
  monkeypatch.setattr(dataset, 'render', lambda *_: pytest.fail('rendered again'))
  write_dataset(root, small_config())
  assert image_descriptions(root) == image_descriptions(small_root)
  with pytest.raises(UserError, match='images_per_identity 8 -> 9'):
    write_dataset(root, small_config(images_per_identity=9))


def test_missing_manifest_is_an_error(tmp_path):
  with pytest.raises(UserError, match='truth.json is missing'):
    image_descriptions(tmp_path / 'nowhere')


def test_second_process_waits_for_the_first_and_renders_nothing(tmp_path, monkeypatch, lines):
  config = small_config(image_size_hw=(16, 8))
  render_all, rendered, threads = dataset._render_all, [], []

  def with_a_second(root, settings):
    rendered.append(root)
    if not threads:  # has a lock of its own, as another process has
      threads.append(threading.Thread(target=write_dataset, args=(tmp_path / 'people', config)))
      threads[0].start()
      while not any('waiting for another process' in line for line in lines):
        time.sleep(0.01)
    render_all(root, settings)

  monkeypatch.setattr(dataset, '_render_all', with_a_second)
  write_dataset(tmp_path / 'people', config)
  threads[0].join()
  assert len(rendered) == 1 and [path.name for path in tmp_path.iterdir()] == ['people']


def test_what_killed_processes_left_behind_is_removed(tmp_path):
  for name in ('people.0123abcd.partial', 'other.0123abcd.partial', 'people.mine.partial'):
    (tmp_path / name / 'query').mkdir(parents=True)
  write_dataset(tmp_path / 'people', small_config(image_size_hw=(16, 8)))
  assert sorted(path.name for path in tmp_path.iterdir()) == ['other.0123abcd.partial', 'people', 'people.mine.partial']


def test_folder_is_found_however_it_is_named(tmp_path, monkeypatch):
  (tmp_path / 'people').mkdir()
  monkeypatch.chdir(tmp_path / 'people')
  write_dataset('.', small_config(image_size_hw=(16, 8)))
  assert image_descriptions(tmp_path / 'people')
