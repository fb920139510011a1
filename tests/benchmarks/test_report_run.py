"""The run of the report on an accelerator: its config, its step times, and how its processes are stopped."""

import logging
import sys

import pytest

from dgnet_jax.benchmarks import report_processes
from dgnet_jax.benchmarks.report_cases import PRECISIONS
from dgnet_jax.benchmarks.report_processes import Worker
from dgnet_jax.benchmarks.report_run import LARGE, LIMITED, StepTimes, TimedRun, run_config
from dgnet_jax.config.loading import find_config_file, run_config_file
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves, problems, with_fields
from dgnet_jax.training.schedules import active_terms, phase_boundaries
from dgnet_jax.types import ActiveTerms
from dgnet_jax.utils.progress import Progress


def test_large_setting_is_that_of_the_ablation():
  large = run_config_file(find_config_file('ablation')).get_config('large')
  assert with_fields(Config(), LARGE) == Config.from_mapping(large)


@pytest.mark.parametrize('precision', PRECISIONS)
def test_run_differs_from_the_large_setting_where_it_says(precision):
  large = dict(leaves(with_fields(Config(), LARGE).to_dict()))
  config = run_config(TimedRun(1, precision))
  changed = {name for name, value in leaves(config.to_dict()) if value != large[name]}
  assert changed - {'compute_dtype'} == LIMITED.keys()
  assert config.compute_dtype == PRECISIONS[precision][1] and not problems(config.to_dict())
  assert not problems(run_config(TimedRun(1, precision), tiny=True).to_dict())


def test_run_has_one_phase_with_all_terms():
  config = run_config(TimedRun(1))
  assert not phase_boundaries(config.ramps, config.num_steps)
  assert active_terms(config.ramps, 0) == ActiveTerms(generator=True, codes=True, cycle=True, teaching=True)


def log(times, seconds, message):
  record = logging.LogRecord('dgnet_jax.training', logging.INFO, '', 0, message, None, None)
  record.created = seconds
  times.handle(record)


def test_step_times_are_those_between_progress_lines():
  times, progress = StepTimes(), Progress(10_000, 40)
  assert times.summary(32)['steps'] == 0 and times.summary(32)['step_seconds'] is None
  log(times, 1000.0, 'data: folder')
  log(times, 1001.0, 'step 40: compiling for the warm-up (no ramped terms)')
  log(times, 1105.5, progress.line(50, 'total 1.0'))
  assert times.summary(32)['step_seconds'] is times.summary(32)['first_step_seconds'] is None
  for seconds, step in ((1110.5, 60), (1115.5, 70), (1125.5, 80), (1129.5, 88)):  # the third writes a checkpoint
    log(times, seconds, progress.line(step))
  assert times.summary(32) == {
    'steps': 88,
    'num_steps': 10_000,
    'step_seconds': 0.5,
    'images_per_second': 64.0,
    'first_step_seconds': 100.0,
  }


@pytest.fixture
def worker(tmp_path, monkeypatch):
  """Makes a worker that runs a shell script in place of a process of the report."""
  workers = []

  def make(script):
    path = tmp_path / 'script'
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(path))
    workers.append(Worker([], tmp_path / 'log'))
    return workers[-1]

  yield make
  for made in workers:
    made.stop()


def read(lines, seen):
  for line in lines:
    seen.append(line)
  return seen


def test_process_that_saves_when_time_is_up_is_read_to_its_end(worker):
  process = worker('trap "echo saved; exit 0" TERM; echo started; echo; while :; do sleep 0.05; done')
  assert read(process.lines(1, interrupt=True), []) == ['started', 'saved']


@pytest.mark.parametrize(('interrupt', 'trap'), [(False, ''), (True, "trap '' TERM;"), (True, '')])
def test_process_that_does_not_end_in_time_is_named_with_what_it_did(worker, monkeypatch, interrupt, trap):
  monkeypatch.setattr(report_processes, 'EXIT_SECONDS', 1)
  process, seen = worker(f'{trap} echo started; echo compiling >&2; while :; do sleep 0.05; done'), []
  with pytest.raises(TimeoutError, match='^compiling$'):
    read(process.lines(1, interrupt=interrupt), seen)
  assert seen == ['started']


def test_process_that_fails_is_named_with_what_it_did(worker):
  process, seen = worker('echo started; echo no memory >&2; exit 1'), []
  with pytest.raises(ChildProcessError, match='^no memory$'):
    read(process.lines(60, interrupt=True), seen)
  assert seen == ['started']
