"""Training data that change between the starts of a run, or between a teacher and a run."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.image_bytes import record_address
from dgnet_jax.data.index import DatasetIndex, Split
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError
from dgnet_jax.training import data_record
from dgnet_jax.training.data_record import (
  RECORD_FILE,
  comparable,
  data_changes,
  describe_training_data,
  identity_changes,
  read_record,
  write_record,
)
from dgnet_jax.training.teacher_store import check_teacher, describe_teacher
from dgnet_jax.training.training_data import open_training_data
from tests.data.folders import write_image, write_images
from tests.tiny_run import frozen, tiny_config

IMAGES = [f'train/{person}/{number}.jpg' for person in ('Anna', 'Ben', 'Cleo') for number in range(1, 5)]


@pytest.fixture
def root(tmp_path):
  return write_images(tmp_path / 'data', *IMAGES)


@pytest.fixture
def config(root):
  config = tiny_config()
  config.data.update(layout='folders', root=str(root), loader='threads')
  config.batch_size = config.teacher.batch_size = 8
  return frozen(config)


@pytest.fixture
def started(config, tmp_path):
  """The work folder of a run that was started and can be resumed."""
  open_training_data(config, tmp_path / 'run')
  (tmp_path / 'run' / 'checkpoints' / '3').mkdir(parents=True)
  return tmp_path / 'run'


def accepting(config, error):
  """Returns the config with the option that an error names."""
  value = str(error.value).partition('--config.data.accept_changes=')[2].partition(' ')[0]
  return dataclasses.replace(config, data=dataclasses.replace(config.data, accept_changes=value))


def rename_person(root):
  (root / 'train' / 'Ben').rename(root / 'train' / 'Bob')


def swap_people(root):
  """The files of two people, under each other's names."""
  for one, other in (('Anna', 'x'), ('Ben', 'Anna'), ('x', 'Ben')):
    (root / 'train' / one).rename(root / 'train' / other)


def change_one_bit(root):
  """The size stays the same."""
  content = bytearray((root / IMAGES[8]).read_bytes())
  content[-3] ^= 1
  (root / IMAGES[8]).write_bytes(content)


CHANGES = {
  'renamed person': (
    rename_person,
    ['1 identities are missing (Ben)', '1 identities are new (Bob)', '4 images are new (train/Bob/1.jpg,'],
  ),
  'swapped people': (swap_people, ['8 images have different content (train/Anna/1.jpg,']),
  'new image': (lambda root: write_images(root, 'train/Ben/5.jpg'), ['1 images are new (train/Ben/5.jpg)']),
  'lost image': (lambda root: (root / IMAGES[0]).unlink(), [f'1 images are missing ({IMAGES[0]})']),
  'other image': (
    lambda root: write_image(root / IMAGES[8], seed=7, size_hw=(40, 20)),
    [f'1 images have different content ({IMAGES[8]})'],
  ),
  'image of the same size': (change_one_bit, [f'1 images have different content ({IMAGES[8]})']),
  'moved image': (
    lambda root: (root / IMAGES[0]).rename(root / 'train' / 'Ben' / '9.jpg'),
    [f'1 images are missing ({IMAGES[0]}); 1 images are new (train/Ben/9.jpg)'],
  ),
}


@pytest.mark.parametrize('kind', CHANGES)
def test_changed_data_are_refused_by_name_and_can_be_accepted(config, root, started, kind, lines):
  change, words = CHANGES[kind]
  change(root)
  with pytest.raises(UserError, match='the training data have changed since the run was started') as error:
    open_training_data(config, started)
  assert all(text in str(error.value) for text in [str(started), *words])
  open_training_data(accepting(config, error), started)
  assert any('the training data have changed' in line and line.endswith('accept_changes.') for line in lines)
  open_training_data(config, started)  # these are the run's data from now on
  write_images(root, 'train/Anna/8.jpg')
  with pytest.raises(UserError, match='train/Anna/8.jpg'):
    open_training_data(accepting(config, error), started)


def test_other_labels_of_the_same_files_are_named(config, root, tmp_path):
  table = root / 'all.csv'
  rows = [f'{path},{path.split("/")[1]},1,train' for path in IMAGES]
  table.write_text('\n'.join(['path,identity,camera,split', *rows]))
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, layout='csv', root=str(table)))
  open_training_data(config, tmp_path / 'run')
  (tmp_path / 'run' / 'teacher' / 'checkpoints' / '1').mkdir(parents=True)  # only the teacher is trained so far
  table.write_text(table.read_text().replace('train/Ben/2.jpg,Ben', 'train/Ben/2.jpg,Cleo'))
  with pytest.raises(UserError, match=r'1 images have another identity \(train/Ben/2.jpg: Ben, now Cleo\)'):
    open_training_data(config, tmp_path / 'run')


def test_another_number_of_identities_cannot_be_accepted(config, root, started):
  shutil.rmtree(root / 'train' / 'Anna')
  with pytest.raises(UserError, match=r'1 identities are missing \(Anna\).* a class for each identity') as error:
    open_training_data(config, started)
  assert 'accept_changes' not in str(error.value)


def test_data_may_move_and_change_before_anything_is_trained(config, root, started, tmp_path):
  moved = root.rename(tmp_path / 'elsewhere')
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(moved)))
  open_training_data(config, started)
  shutil.rmtree(started / 'checkpoints')
  rename_person(moved)
  open_training_data(config, started)
  assert read_record(started).identities == ('Anna', 'Bob', 'Cleo')


def test_run_without_a_record_gets_one(config, started):
  (started / RECORD_FILE).unlink()
  open_training_data(config, started)
  assert len(read_record(started).images) == len(IMAGES)


@pytest.mark.parametrize(
  'text',
  ['', '{"identities": [', '[]', '7', '{}', '{"identities": ["A"], "paths": ["x"], "classes": [1], "contents": ["2"]}'],
)
def test_damaged_record_is_named(started, text):
  (started / RECORD_FILE).write_text(text)
  with pytest.raises(UserError, match=f'{RECORD_FILE} is damaged .* delete this file'):
    read_record(started)


def test_record_without_hashes_is_compared_by_name(config, root, started):
  record = json.loads((started / RECORD_FILE).read_text())
  del record['contents']
  (started / RECORD_FILE).write_text(json.dumps(record))
  change_one_bit(root)
  open_training_data(config, started)
  rename_person(root)
  with pytest.raises(UserError, match='1 identities are new'):
    open_training_data(config, started)


def test_a_file_is_read_once(root, monkeypatch):
  reads = []
  monkeypatch.setattr(data_record, 'read_encoded', lambda path: reads.append(path) or b'')
  assert train_of(root) == train_of(root) and len(reads) == len(IMAGES)


def test_record_keeps_names_of_any_bytes(tmp_path):
  split = Split(('/r/\udcff\n.jpg', '/r/b'), np.array([1, 2], np.int32), np.array([1, 1], np.int32))
  index = DatasetIndex('folders', '/r', split, split, split, split, {1: 'Ä\udcff', 2: 'B'})
  data = describe_training_data(index, DataConfig())
  write_record(data, tmp_path)
  assert read_record(tmp_path) == data and read_record(tmp_path).fingerprint == data.fingerprint
  assert data.images == {'\udcff\n.jpg': (0, ''), 'b': (1, '')}


def test_records_of_a_prepared_data_set_are_the_files_that_they_were_made_from(root):
  index = read_layout(root, 'folders')
  files = describe_training_data(index, DataConfig())
  addresses = [record_address('/tfds/1.0.0', 'train', i, name) for i, name in enumerate(IMAGES)]
  split = dataclasses.replace(index.train, paths=tuple(addresses))
  records = describe_training_data(dataclasses.replace(index, root='/tfds/1.0.0', train=split), DataConfig())
  assert data_changes(files, records) == data_changes(records, files) == []


@pytest.mark.parametrize(('one', 'other'), [('2', '0002'), ('0', '0000'), ('Anna', 'Anna')])
def test_layouts_write_one_identity_in_several_ways(one, other):
  assert comparable(one) == comparable(other) and not identity_changes([one], [other])


@pytest.mark.parametrize(('one', 'other'), [('2', '20'), ('0', '-1'), ('a2', 'a02'), ('²', '2'), ('', '0')])
def test_other_identities_differ(one, other):
  assert comparable(one) != comparable(other) and identity_changes([one], [other])


def test_order_of_classes_counts():
  assert 'other classes' in identity_changes(['10', '9'], ['09', '10'])[0]


@pytest.fixture
def data(config, root):
  return describe_training_data(read_layout(root, 'folders'), config.data)


@pytest.fixture
def saved(config, data, tmp_path):
  write_record(data, tmp_path)
  return json.loads(json.dumps(describe_teacher(config, 3, data.identities)))


def train_of(root):
  return describe_training_data(read_layout(root, 'folders'), DataConfig())


def test_teacher_of_the_same_people_fits_in_any_images(config, data, saved, root, tmp_path):
  check_teacher(saved, config, data, tmp_path)
  write_images(root, 'train/Ben/5.jpg', 'train/Ben/6.jpg')
  (root / IMAGES[0]).unlink()
  check_teacher(saved, config, train_of(root), tmp_path)


def test_teacher_of_other_names_is_refused_although_their_number_is_the_same(config, saved, root, tmp_path):
  rename_person(root)
  words = r'other identities, .* 1 identities are missing \(Ben\); 1 identities are new \(Bob\)'
  with pytest.raises(UserError, match=words) as error:
    check_teacher(saved, config, train_of(root), tmp_path)
  check_teacher(saved, accepting(config, error), train_of(root), tmp_path)


def test_teacher_of_other_people_with_the_same_names_is_refused(config, saved, root, tmp_path):
  for seed, path in enumerate(IMAGES, 50):
    write_image(root / path, seed=seed, size_hw=(60, 30))
  with pytest.raises(UserError, match='12 of 12 images of the same name have a different identity or content'):
    check_teacher(saved, config, train_of(root), tmp_path)


def test_teachers_of_earlier_versions_prove_what_they_stored(config, data, saved, tmp_path):
  check_teacher(saved | {'identities': None}, config, data, tmp_path)  # imported from the release
  check_teacher(saved | {'identities': [1, 2, 3]}, config, data, tmp_path)
  with pytest.raises(UserError, match='their numbers differ'):
    check_teacher(saved | {'identities': [1, 2, 4]}, config, data, tmp_path)
  (tmp_path / RECORD_FILE).unlink()
  check_teacher(saved, config, data, tmp_path)
