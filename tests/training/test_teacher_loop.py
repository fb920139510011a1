import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.training import teacher_loop as module
from dgnet_jax.training.teacher_loop import load_teacher, train_teacher
from tests.data.folders import write_market

IMAGES = tuple(f'{person:04}_c{camera}s1_000{camera}51_00.jpg' for person in range(1, 9) for camera in (1, 2))
NUM_STEPS = 6  # 3 epochs of 2 steps


@pytest.fixture(scope='module')
def index(tmp_path_factory):
  return read_layout(write_market(tmp_path_factory.mktemp('data'), train=IMAGES))


@pytest.fixture(scope='module')
def config():
  config = default_config()
  config.data.update(loader='memory', image_size_hw=(16, 8))
  config.reid.input_scale = 1
  config.teacher.update(stage_sizes=(1, 1), width=4, head_width=8, batch_size=8)
  config.teacher.update(num_epochs=3, warmup_epochs=1, decay_epoch=2)
  config.log.update(progress_every_steps=2, checkpoint_every_steps=2)
  return config


@pytest.fixture(scope='module')
def trained(config, index, tmp_path_factory):
  """An unbroken run: its folder, the teacher, and the lines that a person saw."""
  workdir, lines = tmp_path_factory.mktemp('run'), []
  return workdir, train_teacher(config, index, workdir), lines


def changed(config, **teacher):
  """A copy with other fields of `teacher`."""
  copy = config.copy_and_resolve_references()
  copy.teacher.update(teacher)
  return copy


def stop_after(monkeypatch, steps, action):
  """Makes `action()` happen during step number `steps` of a run in this process."""
  make_step = module.make_teacher_step

  def make_watched_step(*args):
    step_fn, done = make_step(*args), []

    def watched_step(*step_args):
      done.append(None)
      result = step_fn(*step_args)
      return (action(result) or result) if len(done) == steps else result

    return watched_step

  monkeypatch.setattr(module, 'make_teacher_step', make_watched_step)


def assert_equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_a_person_sees(trained):
  workdir, _, lines = trained
  progress = [line for line in lines if 'left' in line]
  assert [line.split()[1] for line in progress] == ['2/6', '4/6', '6/6']
  assert all('loss' in line and 'accuracy' in line and 'rate' in line and 'steps/s' in line for line in progress)
  assert any(f'3 epochs of 2 steps, from step 0, in {workdir / "teacher"}' in line for line in lines)


def test_metrics_are_kept(trained):
  lines = (trained[0] / 'teacher' / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert [record['step'] for record in records] == [2, 4, 6]
  assert all({'loss', 'accuracy', 'rate'} < record.keys() for record in records)
  # The rate of the last step before each line: warm-up over 2 steps, drop at step 4.
  assert [record['rate'] for record in records] == pytest.approx([0.0275, 0.05, 0.005])


def test_it_is_reused_when_it_is_there(trained, config, index, monkeypatch, lines):
  workdir, teacher, _ = trained
  monkeypatch.delattr(module, 'make_source')
  lines.clear()
  assert_equal(train_teacher(changed(config, num_epochs=9), index, workdir), teacher)
  assert lines == [f'teacher: {workdir / "teacher"}, trained for 6 steps']
  assert_equal((load_teacher(config, index, workdir / 'teacher'),), teacher)


def test_a_checkpoint_named_in_the_config_is_used(trained, config, index, tmp_path):
  named = changed(config, checkpoint=str(trained[0] / 'teacher'))
  assert_equal(train_teacher(named, index, tmp_path), trained[1])
  assert not list(tmp_path.iterdir())


def test_several_checkpoints_are_several_teachers(trained, config, index, tmp_path):
  folder = trained[0] / 'teacher'
  named = changed(config, checkpoint=f'{folder}, {folder}')
  assert_equal(train_teacher(named, index, tmp_path), 2 * trained[1])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_exactly(trained, config, index, tmp_path, monkeypatch, number, lines):
  with monkeypatch.context() as patch:
    stop_after(patch, 3, lambda _: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match='step 3 of 6'):
      train_teacher(config, index, tmp_path)
  with pytest.raises(UserError, match='is at step 3 of 6'):
    load_teacher(config, index, tmp_path / 'teacher')
  lines.clear()
  assert_equal(train_teacher(config, index, tmp_path), trained[1])
  assert any('from step 3' in line for line in lines)


def test_a_killed_run_goes_on_exactly(trained, config, index, tmp_path, monkeypatch, lines):
  """From the checkpoint of step 4, as if the machine had failed in step 5."""

  def fail(_):
    raise MemoryError

  with monkeypatch.context() as patch, pytest.raises(MemoryError):
    stop_after(patch, 5, fail)
    train_teacher(config, index, tmp_path)
  lines.clear()
  assert_equal(train_teacher(config, index, tmp_path), trained[1])
  assert any('from step 4' in line for line in lines)
  steps = [json.loads(line)['step'] for line in (tmp_path / 'teacher' / 'metrics.jsonl').read_text().splitlines()]
  assert steps == [2, 4, 6]


def test_a_loss_that_is_not_finite_names_its_step(config, index, tmp_path, monkeypatch):
  stop_after(monkeypatch, 3, lambda result: (result[0], result[1] | {'loss': np.float32(np.nan)}))
  with pytest.raises(UserError, match='not finite at step 3.*learning_rate'):
    train_teacher(config, index, tmp_path)


class TestOneThatDoesNotFit:
  def test_other_sizes_are_named(self, trained, config, index):
    other = changed(config, width=8, head_width=4)
    for use in (
      lambda: load_teacher(other, index, trained[0] / 'teacher'),
      lambda: train_teacher(other, index, trained[0]),
    ):
      with pytest.raises(UserError, match='width is 4 there and 8 here; head_width is 8 there and 4 here'):
        use()

  def test_another_number_of_people(self, trained, config, tmp_path):
    fewer = read_layout(write_market(tmp_path, train=IMAGES[2:]))
    with pytest.raises(UserError, match='num_identities is 8 there and 7 here'):
      load_teacher(config, fewer, trained[0] / 'teacher')

  def test_other_people(self, trained, config, tmp_path):
    others = read_layout(write_market(tmp_path, train=(*IMAGES[2:], '0099_c1s1_000151_00.jpg')))
    with pytest.raises(UserError, match='as many, but other people'):
      load_teacher(config, others, trained[0] / 'teacher')

  def test_none_there(self, config, index, tmp_path):
    with pytest.raises(UserError, match='no teacher in .*teacher.json is missing'):
      load_teacher(config, index, tmp_path)

  def test_a_damaged_description(self, config, index, tmp_path):
    (tmp_path / 'teacher.json').write_text('{"num')
    with pytest.raises(UserError, match='teacher.json is damaged'):
      load_teacher(config, index, tmp_path)


def test_a_damaged_last_checkpoint_is_made_again(trained, config, index, tmp_path, lines):
  shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
  last = tmp_path / 'teacher' / 'checkpoints' / str(NUM_STEPS)
  for path in last.rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  lines.clear()
  with pytest.warns(UserWarning, match='damaged checkpoint skipped, step 6'):
    assert_equal(train_teacher(config, index, tmp_path), trained[1])
  assert any('from step 4' in line for line in lines)
