import dataclasses
import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.training import teacher_loop
from dgnet_jax.training.teacher_loop import train_teacher
from dgnet_jax.training.teacher_store import is_trained, load_teacher
from tests.data.folders import write_market
from tests.log_lines import logged
from tests.training.tiny_teacher import IMAGES, NUM_STEPS, assert_equal, teacher_config, with_teacher


@pytest.fixture(scope='module')
def index(tmp_path_factory):
  return read_layout(write_market(tmp_path_factory.mktemp('data'), train=IMAGES))


@pytest.fixture(scope='module')
def config():
  return teacher_config()


@pytest.fixture(scope='module')
def trained(config, index, tmp_path_factory):
  """An uninterrupted run: its folder, the teacher, and the log messages."""
  workdir = tmp_path_factory.mktemp('run')
  with logged() as lines:
    teachers = train_teacher(config, index, workdir)
  return workdir, teachers, list(lines)


def after_steps(monkeypatch, steps, action):
  """Makes `action(result)` run after `steps` steps in this process; what it returns, if anything, is the result."""
  make_step = teacher_loop.make_teacher_step

  def make_watched_step(*args):
    step_fn, done = make_step(*args), []

    def watched_step(*step_args):
      done.append(None)
      result = step_fn(*step_args)
      return (action(result) or result) if len(done) == steps else result

    return watched_step

  monkeypatch.setattr(teacher_loop, 'make_teacher_step', make_watched_step)


def metric_records(workdir):
  return [json.loads(line) for line in (workdir / 'teacher' / 'metrics.jsonl').read_text().splitlines()]


def test_log_messages(trained):
  workdir, _, lines = trained
  progress = [line for line in lines if 'left' in line]
  assert [line.split()[1] for line in progress] == ['2/6', '4/6', '6/6']
  assert all('loss' in line and 'accuracy' in line and 'rate' in line and 'steps/s' in line for line in progress)
  assert any(f'3 epochs of 2 steps, from step 0, in {workdir / "teacher"}' in line for line in lines)


def test_metrics_are_written(trained):
  records = metric_records(trained[0])
  assert [record['step'] for record in records] == [2, 4, 6]
  assert all({'loss', 'accuracy', 'rate'} < record.keys() for record in records)
  # The rate of the last step before each line: warm-up over 2 steps, drop at step 4.
  assert [record['rate'] for record in records] == pytest.approx([0.0275, 0.05, 0.005])


def test_trained_teacher_is_reused(trained, config, index, monkeypatch, lines):
  workdir, teachers, _ = trained
  monkeypatch.delattr(teacher_loop, 'make_source')
  assert is_trained(workdir / 'teacher')
  assert_equal(train_teacher(config, index, workdir), teachers)
  assert lines == [f'teacher: {workdir / "teacher"}, trained for 6 steps']
  assert_equal(train_teacher(with_teacher(config, num_epochs=9), index, workdir), teachers)
  assert 'num_epochs=9 asks for more steps, but a finished teacher stays as it is; to train a longer' in lines[-1]
  assert_equal((load_teacher(config, index, workdir / 'teacher'),), teachers)


def test_images_on_the_devices_train_the_same_teacher(trained, config, index, tmp_path):
  on_devices = dataclasses.replace(config, data=dataclasses.replace(config.data, loader='device'))
  assert_equal(train_teacher(on_devices, index, tmp_path), trained[1])


def test_configured_checkpoint_is_used(trained, config, index, tmp_path):
  configured = with_teacher(config, checkpoint=str(trained[0] / 'teacher'))
  assert_equal(train_teacher(configured, index, tmp_path), trained[1])
  assert not list(tmp_path.iterdir())


def test_several_checkpoints_give_several_teachers(trained, config, index, tmp_path):
  folder = trained[0] / 'teacher'
  configured = with_teacher(config, checkpoint=f'{folder}, {folder}')
  assert_equal(train_teacher(configured, index, tmp_path), 2 * trained[1])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_resumes_exactly(trained, config, index, tmp_path, monkeypatch, number, lines):
  with monkeypatch.context() as patch:
    after_steps(patch, 3, lambda _: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match='teacher stopped at step 3 of 6'):
      train_teacher(config, index, tmp_path)
  assert not is_trained(tmp_path / 'teacher')
  with pytest.raises(UserError, match='is at step 3 of 6'):
    load_teacher(config, index, tmp_path / 'teacher')
  lines.clear()
  assert_equal(train_teacher(config, index, tmp_path), trained[1])
  assert any('from step 3' in line for line in lines)


def test_run_with_batches_of_identities_resumes_exactly(config, index, tmp_path, monkeypatch):
  strong = with_teacher(config, images_per_identity=2, triplet=1.0, label_smoothing=0.1, schedule='cosine')
  expected = train_teacher(strong, index, tmp_path / 'unbroken')
  records = metric_records(tmp_path / 'unbroken')
  assert all({'loss', 'loss/identity', 'loss/triplet'} < record.keys() for record in records)
  # Warm-up over 2 of 6 steps, then half a cosine over 4.
  assert [record['rate'] for record in records] == pytest.approx([0.0275, 0.0426777, 0.00732233], rel=1e-5)
  with monkeypatch.context() as patch, pytest.raises(Interrupted):
    after_steps(patch, 3, lambda _: os.kill(os.getpid(), signal.SIGINT))
    train_teacher(strong, index, tmp_path / 'broken')
  assert_equal(train_teacher(strong, index, tmp_path / 'broken'), expected)


def test_too_few_identities_raise_before_anything_is_read(config, tmp_path, monkeypatch):
  monkeypatch.delattr(teacher_loop, 'make_source')
  images = [f'{person:04d}_c1s1_{number:06d}_00.jpg' for person in (1, 2, 3) for number in range(6)]
  index = read_layout(write_market(tmp_path, train=images))
  config = with_teacher(config, images_per_identity=2)
  with pytest.raises(UserError, match='teacher.batch_size: 8 are 4 identities with 2 images each .* show 3'):
    train_teacher(config, index, tmp_path / 'run')


def test_killed_run_resumes_exactly(trained, config, index, tmp_path, monkeypatch, lines):
  """Resumes from the checkpoint of step 4, as if the machine had failed in step 5."""

  def fail(_):
    raise MemoryError

  with monkeypatch.context() as patch, pytest.raises(MemoryError):
    after_steps(patch, 5, fail)
    train_teacher(config, index, tmp_path)
  lines.clear()
  assert_equal(train_teacher(config, index, tmp_path), trained[1])
  assert any('from step 4' in line for line in lines)
  assert [record['step'] for record in metric_records(tmp_path)] == [2, 4, 6]


def test_teacher_beyond_its_number_of_epochs_stays_as_it_is(trained, config, index, tmp_path, lines):
  shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
  shutil.rmtree(tmp_path / 'teacher' / 'checkpoints' / str(NUM_STEPS))
  train_teacher(with_teacher(config, num_epochs=1, warmup_epochs=0, decay_epoch=1), index, tmp_path)
  assert any('teacher.num_epochs=1 are 2 steps, but the teacher has done 4 steps already' in line for line in lines)
  assert json.loads((tmp_path / 'teacher' / 'teacher.json').read_text())['num_steps'] == 4


def test_loss_that_is_not_finite_raises_with_its_step(config, index, tmp_path, monkeypatch):
  after_steps(monkeypatch, 3, lambda result: (result[0], result[1] | {'loss': np.float32(np.nan)}))
  with pytest.raises(UserError, match='step 2: loss not finite.*learning_rate'):
    train_teacher(config, index, tmp_path)


def test_update_that_is_not_finite_is_not_saved(trained, config, index, tmp_path, monkeypatch, lines):
  """The loss of the step is finite; the run goes on from the checkpoint that the message names."""

  def spoil(result):
    state, metrics = result
    params = jax.tree.map(lambda x: x * np.nan, state.network.params)
    return state.replace(network=state.network.replace(params=params)), metrics

  with monkeypatch.context() as patch, pytest.raises(UserError, match='step 3: after its update.* is step 2 in '):
    after_steps(patch, 4, spoil)
    train_teacher(config, index, tmp_path)
  assert_equal(train_teacher(config, index, tmp_path), trained[1])
  assert any('from step 2' in line for line in lines)


@pytest.mark.parametrize(
  ('batch_size', 'problem'),
  [(6, 'does not divide among 8 devices'), (24, 'is above the number of training images, 16')],
)
def test_wrong_batch_size_raises_before_anything_is_read(config, index, tmp_path, monkeypatch, batch_size, problem):
  monkeypatch.delattr(teacher_loop, 'make_source')
  with pytest.raises(UserError, match=f'teacher.batch_size: {batch_size} {problem}. Use a multiple of 8 up to 16'):
    train_teacher(with_teacher(config, batch_size=batch_size), index, tmp_path)


def test_damaged_last_checkpoint_is_trained_again(trained, config, index, tmp_path, lines):
  shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
  last = tmp_path / 'teacher' / 'checkpoints' / str(NUM_STEPS)
  for path in filter(pathlib.Path.is_file, last.rglob('*')):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.warns(UserWarning, match='damaged checkpoint skipped: .*step 6 is damaged'):
    assert_equal(train_teacher(config, index, tmp_path), trained[1])
  assert any('from step 4' in line for line in lines)
