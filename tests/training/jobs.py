"""Whole runs in processes of their own, on this machine or as on several: `dgnet train` with tiny networks."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from dgnet_jax.config.loading import save_config
from dgnet_jax.training.checkpoints import Checkpoints
from tests.tiny_run import frozen
from tests.training.test_processes import free_port

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

  def __init__(self, workdir, mode='train', *fields, processes=1, devices=1, folder=None, environments=None):
    """Starts them.

    Args:
      workdir: the work folder, a path or an address.
      mode: the command.
      *fields: of the config, as on the command line.
      processes: how many.
      devices: of each process.
      folder: gets the logs and the compiled programs; by default beside the work folder.
      environments: more variables of the environment of each process.
    """
    folder = folder or workdir.parent
    self._logs = [folder / f'{pathlib.PurePath(str(workdir)).name}_{index}.txt' for index in range(processes)]
    port, self.processes = free_port(), []
    common = os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
    }
    for index, (log, own) in enumerate(zip(self._logs, environments or processes * [{}], strict=True)):
      together = [f'--distributed=localhost:{port},{processes},{index}'] if processes > 1 else []
      command = [sys.executable, '-m', 'dgnet_jax.cli.main', mode, f'--workdir={workdir}', *together, *fields]
      with log.open('w') as output:
        self.processes.append(subprocess.Popen(command, env=common | own, stdout=output, stderr=output))

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

    def found():
      matches = [re.search(pattern, text) for text in self.texts()]
      return matches if all(matches) else None

    return self.wait_until(found)

  def wait_until(self, condition):
    """Waits until a function returns something true, and returns that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
      assert time.monotonic() < deadline, self.texts()
      time.sleep(0.02)
    return found

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
