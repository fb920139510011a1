"""The loop of a training job, with a step that only counts: reports, checkpoints, interruption."""

import contextlib
import json
import os
import signal
import threading

import flax.struct
import jax
import jax.numpy as jnp
import pytest

from dgnet_jax.config.schema import LogConfig
from dgnet_jax.errors import Interrupted
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.job import Job, Report, run_job
from dgnet_jax.training.metrics import MetricWriter

NUM_STEPS = 10
LOG = LogConfig(progress_every_steps=4, checkpoint_every_steps=3)


@flax.struct.dataclass
class Counter:
  step: jax.Array


class Counting:
  """A job whose loss is the number of steps done before; calls `on_step(step)` in each step."""

  def __init__(self, folder, on_step=lambda step: None):
    self.folder, self.after = folder, []
    self.job = Job(
      name='counting',
      num_steps=NUM_STEPS,
      advice='',
      take_step=self._take_step,
      report=lambda done, means: Report(f'loss {means["loss"]:.1f}', means),
      after_step=lambda done, state: self.after.append((done, int(state.step))),
    )
    self._on_step = on_step

  def _take_step(self, state, step):
    self._on_step(step)
    return Counter(state.step + 1), {'loss': jnp.float32(step)}

  def run(self):
    """Runs from the latest checkpoint, or from the start."""
    fresh = Counter(jnp.int32(0))
    with contextlib.closing(Checkpoints(self.folder / 'checkpoints', 2)) as checkpoints:
      state = fresh if checkpoints.latest_step() is None else checkpoints.restore(fresh)
      with contextlib.closing(MetricWriter(self.folder, resume_step=int(state.step))) as writer:
        return run_job(self.job, state, log=LOG, checkpoints=checkpoints, writer=writer)

  def records(self):
    return [json.loads(line) for line in (self.folder / 'metrics.jsonl').read_text().splitlines()]


def assert_each_step_is_in_one_mean(records):
  """Checks means of consecutive numbers from 0 on, given the steps at which they were reported."""
  start = 0
  for record in records:
    steps = range(start, record['step'])
    assert record['loss'] == pytest.approx(sum(steps) / len(steps))
    start = record['step']
  assert start == NUM_STEPS


def stop_at(step):
  """Returns a function that sends SIGTERM to this process in the given step."""
  return lambda current: os.kill(os.getpid(), signal.SIGTERM) if current == step else None


def test_every_step_is_in_the_mean_of_exactly_one_report(tmp_path, lines):
  counting = Counting(tmp_path)
  assert int(counting.run().step) == NUM_STEPS
  records = counting.records()
  assert [record['step'] for record in records] == [3, 4, 6, 8, 9, 10]
  assert_each_step_is_in_one_mean(records)
  progress = [line for line in lines if line.startswith('counting ')]
  assert len(progress) == len(records) and 'counting 4/10  loss 3.0' in progress[1]
  assert counting.after == [(done, done) for done in range(1, NUM_STEPS + 1)]


def test_interruption_saves_and_resuming_loses_no_step(tmp_path):
  with pytest.raises(Interrupted, match='counting stopped at step 5 of 10; saved in .*to resume'):
    Counting(tmp_path, stop_at(4)).run()
  counting = Counting(tmp_path)
  assert int(counting.run().step) == NUM_STEPS and counting.after[0] == (6, 6)
  assert [record['step'] for record in counting.records()] == [3, 4, 5, 6, 8, 9, 10]
  assert_each_step_is_in_one_mean(counting.records())


def test_killed_run_resumes_from_the_last_checkpoint_with_the_same_reports(tmp_path):
  def fail(step):
    if step == 7:
      raise MemoryError

  with pytest.raises(MemoryError):
    Counting(tmp_path, fail).run()
  counting = Counting(tmp_path)
  counting.run()
  assert counting.after[0] == (7, 7)
  assert [record['step'] for record in counting.records()] == [3, 4, 6, 8, 9, 10]
  assert_each_step_is_in_one_mean(counting.records())


def test_signal_in_the_last_step_is_not_lost(tmp_path):
  with pytest.raises(Interrupted, match='step 10 of 10'):
    Counting(tmp_path, stop_at(NUM_STEPS - 1)).run()
  assert int(Counting(tmp_path).run().step) == NUM_STEPS


def test_job_runs_outside_the_main_thread(tmp_path):
  states = []
  thread = threading.Thread(target=lambda: states.append(Counting(tmp_path).run()))
  thread.start()
  thread.join()
  assert [int(state.step) for state in states] == [NUM_STEPS]
