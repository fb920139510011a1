"""Whole runs of several processes on one machine: preempted, killed, resumed by another number of processes."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from dgnet_jax.config.loading import save_config
from dgnet_jax.training.checkpoints import Checkpoints
from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import frozen, tiny_config
from tests.training.test_processes import free_port

pytestmark = pytest.mark.long

NUM_STEPS = 40
BORDER = 4  # step from which all terms are active
PATIENCE = 600  # seconds


def run_config(config):
  """Both phases of tiny networks, with images and evaluation at the end."""
  config.batch_size, config.num_steps = 8, NUM_STEPS
  config.data.synthetic.update(num_train_identities=6, image_size_hw=(32, 16))
  config.reid.batch_norm_group = 2
  for ramp in config.ramps.values():
    ramp.update(start_step=BORDER - 2, per_step=0.5)
  config.log.update(progress_every_steps=1, images_every_steps=20, checkpoint_every_steps=10)
  return frozen(config)


class Job:
  """Processes that run `dgnet train` together, each with its log."""

  def __init__(self, workdir, mode='train', *fields, processes=1, devices=1):
    self._logs = [workdir.with_name(f'{workdir.name}_{index}.txt') for index in range(processes)]
    port, self.processes = free_port(), []
    environment = os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
      'JAX_COMPILATION_CACHE_DIR': str(workdir.parent / 'compiled'),
    }
    for index, log in enumerate(self._logs):
      together = [f'--distributed=localhost:{port},{processes},{index}'] if processes > 1 else []
      command = [sys.executable, '-m', 'dgnet_jax.cli.main', mode, f'--workdir={workdir}', *together, *fields]
      with log.open('w') as output:
        self.processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for process in self.processes:
      process.kill()
      process.wait()

  def texts(self):
    return [log.read_text() for log in self._logs]

  def wait_for(self, pattern):
    """Waits until every process has logged a line like this; returns the first match of each."""
    deadline = time.monotonic() + PATIENCE
    while True:
      found = [re.search(pattern, text) for text in self.texts()]
      if all(found):
        return found
      assert time.monotonic() < deadline, self.texts()
      time.sleep(0.02)

  def statuses(self):
    with contextlib.suppress(subprocess.TimeoutExpired):
      return [process.wait(PATIENCE) for process in self.processes]
    raise AssertionError(self.texts())


def finish(workdir, *arguments, **options):
  with Job(workdir, *arguments, **options) as job:
    assert set(job.statuses()) == {0}, job.texts()
    return job.texts()


def contents(workdir):
  """The checksums of the last state, and everything else that a run writes, without names of folders."""
  checkpoints = Checkpoints(workdir / 'checkpoints')
  state = checkpoints._reader._description(checkpoints.latest_step())['leaves']
  files = {path.name: path.read_bytes() for path in workdir.rglob('*.png')}
  results = json.loads((workdir / 'evaluation' / 'results.json').read_text()) | {'root': ''}
  return state, (workdir / 'metrics.jsonl').read_text(), results, files


def new_run(folder, name, config):
  workdir = folder / name
  workdir.mkdir()
  save_config(config, workdir / 'config.json')
  return workdir


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
