"""Whole runs of several processes on one machine: preempted, killed, resumed by another number of processes."""

import json
import shutil
import signal

import pytest

from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import tiny_config
from tests.training.jobs import NUM_STEPS, Job, contents, finish, new_run, run_config

pytestmark = pytest.mark.long


@EXHAUSTIVE
def test_two_processes_that_are_preempted_and_killed_equal_an_unbroken_one(tmp_path):
  config = run_config(tiny_config())
  finish(new_run(tmp_path, 'alone', config), devices=2)
  workdir = new_run(tmp_path, 'together', config)

  with Job(workdir, processes=2) as job:
    job.wait_for(rf'\n1/{NUM_STEPS} ')
    job.processes[1].send_signal(signal.SIGTERM)  # only one of them is told
    stops = job.wait_for(rf'stopped at step (\d+) of {NUM_STEPS}; saved in')
    assert job.statuses() == [130, 130]
  assert stops[0][1] == stops[1][1]
  assert (workdir / 'checkpoints' / stops[0][1]).is_dir()

  with Job(workdir, processes=2) as job:
    job.wait_for(rf'\n{int(stops[0][1]) + 2}/{NUM_STEPS} ')
    job.processes[1].kill()
    assert job.statuses() == [1, -signal.SIGKILL]
    assert 'error: another process of the job has ended or cannot be reached' in job.texts()[0]
    assert 'Traceback' not in job.texts()[0]

  finish(workdir, processes=2)
  assert contents(workdir) == contents(tmp_path / 'alone')


@EXHAUSTIVE
def test_processes_that_split_the_classifiers_equal_one_with_two_devices(tmp_path):
  fields = ['--config.model_devices=2', '--config.data.synthetic.num_train_identities=7', '--config.num_steps=6']
  config = run_config(tiny_config())
  finish(new_run(tmp_path, 'alone', config), 'train', *fields, devices=2)
  finish(new_run(tmp_path, 'together', config), 'train', *fields, processes=2)
  # The state and the metrics of the training.
  assert contents(tmp_path / 'together')[:2] == contents(tmp_path / 'alone')[:2]


def test_two_processes_that_are_preempted_rank_during_training_like_one(tmp_path):
  """The teacher, whose step compiles fast; it is ranked by the same loop."""
  fields = ['--config.data.val_identities=2', '--config.evaluation.every_steps=2', '--config.teacher.num_epochs=6']
  finish(new_run(tmp_path, 'alone', run_config(tiny_config())), 'teacher', *fields, devices=2)
  workdir = new_run(tmp_path, 'together', run_config(tiny_config()))
  with Job(workdir, 'teacher', *fields, processes=2) as job:
    job.wait_for(r'step 2: validation mAP')
    job.processes[1].send_signal(signal.SIGTERM)
    assert job.statuses() == [130, 130]
  finish(workdir, 'teacher', *fields, processes=2)
  alone, together = ((tmp_path / name / 'teacher' / 'metrics.jsonl').read_text() for name in ('alone', 'together'))
  assert alone == together
  ranked = [line['step'] for line in map(json.loads, alone.splitlines()) if 'validation/mAP' in line]
  assert ranked == [2, 4, 6, 8, 10, 12]


@EXHAUSTIVE
def test_state_of_four_processes_goes_on_in_one_and_in_two(tmp_path):
  """The teacher, whose step compiles fast; it has the same loop and checkpoints."""
  half, fields = 3, ['--config.teacher.num_epochs=2', '--config.log.checkpoint_every_steps=3']
  finish(new_run(tmp_path, 'four', run_config(tiny_config())), 'teacher', *fields, processes=4)
  losses = []
  for processes in (1, 2):
    workdir = tmp_path / f'by_{processes}'
    shutil.copytree(tmp_path / 'four', workdir)
    shutil.rmtree(workdir / 'teacher' / 'checkpoints' / str(2 * half))
    finish(workdir, 'teacher', *fields, processes=processes)
    assert (workdir / 'teacher' / 'checkpoints' / str(2 * half)).is_dir()
  for name in ('four', 'by_1', 'by_2'):
    lines = [json.loads(line) for line in (tmp_path / name / 'teacher' / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == list(range(1, 2 * half + 1))
    losses.append(lines[half]['loss'])
  # The first step after the same state: other sums of the same numbers.
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)
  assert losses[0] == pytest.approx(losses[2], rel=1e-5)
