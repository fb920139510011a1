"""Reading a teacher that does not fit the run, or is not complete."""

import contextlib
import dataclasses
import pathlib
import shutil

import jax
import jax.numpy as jnp
import pytest

from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError
from dgnet_jax.inference.loading import load_teacher_predictor
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.data_record import describe_training_data, write_record
from dgnet_jax.training.loop import train
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.teacher_loop import train_teacher
from dgnet_jax.training.teacher_step import create_teacher_state
from dgnet_jax.training.teacher_store import (
  check_named_teachers,
  describe_teacher,
  is_trained,
  load_teacher,
  load_teachers,
  teacher_folders,
  write_description,
)
from tests.data.folders import write_market
from tests.training.tiny_teacher import IMAGES, NUM_STEPS, assert_equal, teacher_config, with_teacher


@pytest.fixture(scope='module')
def config():
  return teacher_config()


@pytest.fixture(scope='module')
def index(tmp_path_factory):
  return read_layout(write_market(tmp_path_factory.mktemp('data'), train=IMAGES))


@pytest.fixture(scope='module')
def stored(config, index, tmp_path_factory):
  """A work folder with a teacher as after its training, and its network."""
  workdir = tmp_path_factory.mktemp('run')
  network = make_teacher_network(config, index.num_identities)
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch=2)
  state = create_teacher_state(network, optimizer, seed=0).replace(step=jnp.int32(NUM_STEPS))
  with contextlib.closing(Checkpoints(workdir / 'teacher' / 'checkpoints', 1, config)) as checkpoints:
    checkpoints.save(NUM_STEPS, state, wait=True)
  names = list(index.identity_names.values())[: index.num_identities]
  write_description(describe_teacher(config, index.num_identities, names), NUM_STEPS, workdir / 'teacher')
  return workdir, state.network


def test_teacher_is_read_exactly(stored, config, index):
  workdir, network = stored
  assert is_trained(workdir / 'teacher')
  for data in (index, index.num_identities):
    (teacher,) = load_teachers(config, data, workdir)
    assert_equal(jax.device_get(teacher.params), jax.device_get(network.params))
    assert_equal(jax.device_get(teacher.batch_stats), jax.device_get(network.batch_stats))


def test_folders_are_separated_by_commas(config, tmp_path):
  assert teacher_folders(config.teacher, tmp_path) == (tmp_path / 'teacher',)
  named = with_teacher(config, checkpoint='one, other/teacher').teacher
  assert [str(folder) for folder in teacher_folders(named, tmp_path)] == ['one', 'other/teacher']


@pytest.mark.parametrize('use', [load_teachers, train_teacher])
def test_other_sizes_are_named(stored, config, index, use):
  other = with_teacher(config, width=8, head_width=4)
  with pytest.raises(
    UserError, match='width is 4 in the teacher and 8 in this run; head_width is 8 in the teacher and 4'
  ):
    use(other, index, stored[0])


def test_other_number_of_identities_raises(stored, config, tmp_path):
  fewer = read_layout(write_market(tmp_path, train=IMAGES[2:]))
  with pytest.raises(UserError, match='num_identities is 8 in the teacher and 7 in this run'):
    load_teachers(config, fewer, stored[0])


def test_other_identities_raise(stored, config, tmp_path):
  others = read_layout(write_market(tmp_path, train=(*IMAGES[2:], '0099_c1s1_000151_00.jpg')))
  with pytest.raises(UserError, match='other identities, although the number is the same'):
    load_teachers(config, others, stored[0])


def test_teacher_of_other_people_is_not_evaluated_with_a_run(stored, config, index, tmp_path):
  shutil.copytree(stored[0], tmp_path, dirs_exist_ok=True)
  data = describe_training_data(index, config.data)
  write_record(data, tmp_path)
  load_teacher_predictor(config, tmp_path, index.num_identities)
  write_record(dataclasses.replace(data, identities=tuple('ABCDEFGH')), tmp_path)
  with pytest.raises(UserError, match=r'8 identities are missing .0001, .*8 identities are new .A, B'):
    load_teacher_predictor(config, tmp_path, index.num_identities)


def test_missing_teacher_raises(config, index, tmp_path):
  assert not is_trained(tmp_path)
  with pytest.raises(UserError, match='no teacher in .*teacher.json is missing'):
    load_teacher(config, index, tmp_path)


def test_damaged_description_raises(config, index, tmp_path):
  (tmp_path / 'teacher.json').write_text('{"num')
  with pytest.raises(UserError, match='teacher.json is damaged'):
    load_teacher(config, index, tmp_path)


@pytest.mark.parametrize('content', [b'null', b'[]', b'3', b'{}', b'{"num_steps": "6"}', b'\xff', b'[' * 9999])
def test_damaged_description_is_reported(tmp_path, content):
  (tmp_path / 'teacher.json').write_bytes(content)
  with pytest.raises(UserError, match='teacher.json is damaged'):
    is_trained(tmp_path)


def test_named_teachers_that_do_not_exist_are_reported_before_the_work(config, tmp_path):
  check_named_teachers(config)
  for name in ('absent', 'gs://bucket/teacher'):
    named = with_teacher(config, checkpoint=str(tmp_path / name) if name == 'absent' else name)
    with pytest.raises(UserError, match=name):
      train(named, tmp_path / 'run')
  assert not list(tmp_path.iterdir())


def test_folders_are_found_as_people_type_them(config, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', '/home/anna')
  (tmp_path / 'a, b').mkdir()
  for typed, folders in ((f'{tmp_path}/a, b', [tmp_path / 'a, b']), ('~/x/, y', ['/home/anna/x', 'y'])):
    assert list(teacher_folders(with_teacher(config, checkpoint=typed).teacher, '')) == list(map(pathlib.Path, folders))
