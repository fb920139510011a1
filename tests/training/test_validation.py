"""Ranking during training: when, which step is the best, and that its checkpoint is kept."""

import contextlib
import dataclasses
import json
import signal

import jax.numpy as jnp
import pytest

from dgnet_jax.config.schema import Config, EvaluationConfig
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.training.best_step import best_step, require_best_step
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.job import run_job
from dgnet_jax.training.metrics import MetricWriter
from dgnet_jax.training.validation import Validation, warn_of_other_measure
from tests.training.test_job import LOG, NUM_STEPS, Counter, Counting

MEAN_PRECISION = {2: 0.3, 4: 0.6, 6: 0.6, 8: 0.5, 10: 0.4}  # the mAP after so many steps


class Ranked(Counting):
  """A job whose state is ranked after every second step; of its checkpoints the newest one is kept."""

  def __init__(self, folder, on_step=lambda step: None, mean_precision=MEAN_PRECISION, on_ranking=lambda step: None):
    super().__init__(folder, on_step)
    self._mean_precision, self._on_ranking, self.ranked = mean_precision, on_ranking, []

  def run(self):
    def measure(state):
      self.ranked.append(int(state.step))
      self._on_ranking(int(state.step))
      return {'mAP': self._mean_precision[int(state.step)], 'rank_1': 0.9}

    fresh = Counter(jnp.int32(0))
    with Checkpoints(self.folder / 'checkpoints', 1) as checkpoints:
      state = fresh if checkpoints.latest_step() is None else checkpoints.restore(fresh)
      self.validation = Validation(measure, 'validation', 2)
      self.validation.resume(self.folder, int(state.step))
      checkpoints.keep_best(self.validation.best_step)
      job = dataclasses.replace(self.job, validation=self.validation)
      with contextlib.closing(MetricWriter(self.folder, resume_step=int(state.step))) as writer:
        return run_job(job, state, log=LOG, checkpoints=checkpoints, writer=writer)

  def saved(self):
    return sorted(int(path.name) for path in (self.folder / 'checkpoints').iterdir())

  def scores(self):
    return {row['step']: row['validation/mAP'] for row in self.records() if 'validation/mAP' in row}


def test_ranks_at_intervals_and_keeps_the_first_best_checkpoint(tmp_path, lines):
  job = Ranked(tmp_path)
  job.run()
  assert job.scores() == MEAN_PRECISION
  assert job.validation.best == (4, 0.6) == best_step(tmp_path)
  assert job.saved() == [4, NUM_STEPS]
  assert 'counting step 4: validation mAP 60.00%, rank-1 90.00%, the best so far; its checkpoint is kept' in lines
  assert 'counting step 6: validation mAP 60.00%, rank-1 90.00%' in lines


def test_the_last_step_is_always_ranked():
  validation = Validation(lambda state: {}, 'test', 4)
  assert [step for step in range(1, 11) if validation.is_due(step, last=step == 10)] == [4, 8, 10]


def test_the_best_checkpoint_is_the_only_older_one_even_if_it_is_the_last(tmp_path):
  job = Ranked(tmp_path, mean_precision=MEAN_PRECISION | {NUM_STEPS: 0.7})
  job.run()
  assert job.saved() == [NUM_STEPS] and best_step(tmp_path) == (NUM_STEPS, 0.7)


def stop_at(step):
  """Returns a function that sends SIGTERM to this process in the given step."""
  return lambda current: signal.raise_signal(signal.SIGTERM) if current == step else None


@pytest.mark.parametrize('step', [1, 3, 5, 8, NUM_STEPS - 1])
def test_a_signal_is_obeyed_before_ranking_and_a_resumed_run_ranks_first(tmp_path, step):
  done, stopped = step + 1, Ranked(tmp_path, on_step=stop_at(step))
  with pytest.raises(Interrupted, match=f'stopped at step {done} '):
    stopped.run()
  assert done not in stopped.ranked and stopped.saved()[-1] == done
  job = Ranked(tmp_path)
  job.run()
  assert [*stopped.ranked, *job.ranked] == list(MEAN_PRECISION)
  assert job.scores() == MEAN_PRECISION
  assert job.validation.best == (4, 0.6)
  assert job.saved() == [4, NUM_STEPS]


@pytest.mark.parametrize('step', [4, NUM_STEPS])
def test_a_signal_during_a_ranking_stops_the_run_after_it(tmp_path, step):
  with pytest.raises(Interrupted, match=f'stopped at step {step} '):
    Ranked(tmp_path, on_ranking=stop_at(step)).run()
  job = Ranked(tmp_path)
  job.run()
  assert job.ranked == [done for done in MEAN_PRECISION if done > step]
  assert job.scores() == MEAN_PRECISION and job.saved() == [4, NUM_STEPS]


def test_a_signal_while_a_resumed_run_ranks_is_not_lost(tmp_path):
  with pytest.raises(Interrupted):
    Ranked(tmp_path, on_step=stop_at(NUM_STEPS - 1)).run()
  with pytest.raises(Interrupted, match='stopped at step 10 of 10'):
    Ranked(tmp_path, on_ranking=stop_at(NUM_STEPS)).run()


@pytest.mark.parametrize('step', [2, 6, NUM_STEPS])
def test_a_ranking_that_fails_loses_no_step(tmp_path, step):
  def fail(current):
    if current == step:
      raise OSError('an image is gone')

  with pytest.raises(OSError, match='an image is gone'):
    Ranked(tmp_path, on_ranking=fail).run()
  job = Ranked(tmp_path)
  job.run()
  assert job.ranked[0] == step and job.after[:1] == [(step + 1, step + 1)][: NUM_STEPS - step]
  assert job.scores() == MEAN_PRECISION and job.saved() == [4, NUM_STEPS]


@pytest.mark.parametrize(('field', 'change'), [('protocol', 'release -> standard'), ('alpha', '0.5 -> 1.0')])
def test_another_measure_is_warned_of(lines, field, change):
  now = Config(evaluation=EvaluationConfig(**{field: {'protocol': 'standard', 'alpha': 1.0}[field]}))
  warn_of_other_measure(now.to_dict(), now)
  assert not lines
  warn_of_other_measure(Config().to_dict(), now)
  assert f'evaluation.{field} {change}: the mAP of earlier steps was measured with the former setting' in lines[0]


def test_a_killed_run_ranks_again_what_it_repeats(tmp_path):
  """The line of a step is written before its checkpoint is complete."""

  class Killed(Exception):
    pass

  def kill(current):
    if current == 7:
      raise Killed

  with pytest.raises(Killed):
    Ranked(tmp_path, on_step=kill).run()
  (tmp_path / 'checkpoints' / '6').rename(tmp_path / 'checkpoints' / '6.orbax-checkpoint-tmp')  # not completed
  job = Ranked(tmp_path, mean_precision=MEAN_PRECISION | {6: 0.55})
  job.run()
  assert job.scores()[6] == 0.55 and job.validation.best == (4, 0.6)


class TestBestStep:
  @pytest.fixture
  def run(self, tmp_path):
    """A function that makes a work folder with checkpoints and lines of metrics."""

    def make(lines, steps=(10, 20, 30)):
      for step in steps:
        (tmp_path / 'checkpoints' / str(step)).mkdir(parents=True)
      (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
      return tmp_path

    return make

  def test_only_checkpoints_that_are_there_count(self, run):
    lines = [{'step': step, 'test/mAP': value} for step, value in ((10, 0.1), (15, 0.9), (20, 0.3), (30, 0.2))]
    assert best_step(run(lines)) == (20, 0.3)

  def test_numbers_that_are_not_finite_do_not_count(self, run):
    assert best_step(run([{'step': 10, 'test/mAP': None}, {'step': 20, 'test/mAP': 0.0}])) == (20, 0.0)

  def test_the_validation_split_decides(self, run):
    folder = run([{'step': 10, 'test/mAP': 0.5, 'validation/mAP': 0.1}, {'step': 20, 'validation/mAP': 0.2}])
    assert best_step(folder) == (20, 0.2) and best_step(folder, 'test') == (10, 0.5)

  def test_steps_after_the_last_one_do_not_count(self, run):
    folder = run([{'step': step, 'test/mAP': step / 100} for step in (10, 20, 30)])
    assert best_step(folder, up_to=20) == (20, 0.2) and best_step(folder, up_to=5) is None

  def test_a_run_without_rankings(self, run, tmp_path):
    assert best_step(tmp_path) is None
    folder = run([{'step': 10, 'loss/total': 1.0}])
    with pytest.raises(UserError, match='no checkpoint was evaluated during training.*evaluation.every_steps'):
      require_best_step(folder)
