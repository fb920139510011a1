"""What a training run needs while it goes on: memory, open files, threads and time of a step, from start to end."""

from collections.abc import Sequence
import csv
import dataclasses
import json
import logging
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import numpy.typing as npt

from dgnet_jax.config.loading import SAVED_CONFIG, save_config
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.plots.charts import save_figure
from dgnet_jax.training.schedules import phase_boundaries
from dgnet_jax.utils.atomic_files import atomic_file

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_SAMPLES = 1.0
TAIL_BYTES = 2**16  # of metrics.jsonl: more than its last line
MIN_SAMPLES = 8  # of a phase: two at its start and two at its end are compared
Columns = dict[str, npt.NDArray[np.float64]]  # by name, one number for each sample
LABELS = {'resident_mb': 'memory, MB', 'open_files': 'open files', 'threads': 'threads', 'step_ms': 'step, ms'}


@dataclasses.dataclass(frozen=True)
class Sample:
  """A process at one time.

  Attributes:
    seconds: since the start of the process.
    step: of the newest report in metrics.jsonl.
    resident_mb: memory in use, MB.
    open_files: descriptors.
    threads: threads.
  """

  seconds: float
  step: int
  resident_mb: float
  open_files: int
  threads: int


def benchmark_run(config: Config, out: pathlib.Path) -> None:
  """Trains a run and prints what it needs at the start and at the end of each phase.

  Writes resources.csv, resources.png and the run, in `run`, to `out`.

  Args:
    config: of the run.
    out: a folder without an earlier run.

  Raises:
    UserError: the system has no /proc, `out` holds a run, the training failed, or it was too short.
  """
  if not pathlib.Path('/proc/self/status').is_file():
    raise UserError('benchmark run: reads /proc, which this system does not have')
  workdir = out / 'run'
  if workdir.exists():
    raise UserError(f'{workdir}: exists already; choose another --out')
  save_config(config, workdir / SAVED_CONFIG)
  samples = _train(workdir)
  _write(out / 'resources.csv', samples)
  borders = phase_boundaries(config.ramps, config.num_steps, config.optimizer.generator_steps)
  phases = _phases(samples, [0, *borders, config.num_steps])
  _plot(out / 'resources.png', phases, borders)
  _print_table(phases)
  print(f'{out / "resources.png"}, {out / "resources.csv"}')


def _train(workdir: pathlib.Path) -> list[Sample]:
  """Trains in a process of its own, whose output goes to train.txt; returns its samples."""
  command = [sys.executable, '-m', 'dgnet_jax.cli.main', 'train', f'--workdir={workdir}']
  log, samples, start = workdir.with_name('train.txt'), [], time.monotonic()
  logger.info(f'training in {workdir}; its output is in {log}')
  with log.open('w') as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
    try:
      while process.poll() is None:
        time.sleep(SECONDS_BETWEEN_SAMPLES)
        sample = _sample(process.pid, workdir, time.monotonic() - start)
        if sample is not None:
          samples.append(sample)
    except BaseException:
      process.terminate()  # saves, and ends
      raise
  if process.returncode:
    raise UserError(f'the training ended with status {process.returncode}; {log} says why')
  return samples


def _sample(pid: int, workdir: pathlib.Path, seconds: float) -> Sample | None:
  """Returns a sample; None before the first report and after the end."""
  metrics, process = workdir / 'metrics.jsonl', pathlib.Path('/proc', str(pid))
  try:
    status = dict(line.split(':', 1) for line in (process / 'status').read_text().splitlines())
    memory, threads = int(status['VmRSS'].split()[0]) / 1e3, int(status['Threads'])
    files = len(os.listdir(process / 'fd'))
    with metrics.open('rb') as file:
      file.seek(max(0, metrics.stat().st_size - TAIL_BYTES))
      lines = file.read().split(b'\n')[:-1]  # the last line may be incomplete
  except (OSError, KeyError):
    return None
  return Sample(seconds, json.loads(lines[-1])['step'], memory, files, threads) if lines else None


def _phases(samples: Sequence[Sample], borders: Sequence[int]) -> list[Columns]:
  """Returns for each phase the columns of its samples, with the mean time of the steps since the sample before.

  The first and the last step of a phase are left out: they belong to its compilation and to what follows.
  """
  # Of several samples between two reports, only the first says when the report came.
  steps = np.array([sample.step for sample in samples])
  reported = [sample for sample, moved in zip(samples, np.diff(steps, prepend=0) > 0, strict=True) if moved]
  columns: Columns = {
    field.name: np.array([getattr(sample, field.name) for sample in reported], float)
    for field in dataclasses.fields(Sample)
  }
  columns['step_ms'] = 1e3 * np.diff(columns['seconds'], prepend=0) / np.diff(columns['step'], prepend=0)
  phases = []
  for first, last in zip(borders, borders[1:], strict=False):
    kept = (columns['step'] > first + 1) & (columns['step'] < last)
    phases.append({name: values[kept] for name, values in columns.items()})
  if min(len(phase['step']) for phase in phases) < MIN_SAMPLES:
    raise UserError(f'the training is too short: each phase must take {MIN_SAMPLES * SECONDS_BETWEEN_SAMPLES:.0f} s')
  return phases


def _print_table(phases: Sequence[Columns]) -> None:
  """Prints the medians of the first and of the last quarter of each phase."""
  print(f'{"":<24}' + ''.join(f'{label:>14}' for label in LABELS.values()))
  for number, phase in enumerate(phases, 1):
    quarter = len(phase['step']) // 4
    for title, part in (('first quarter', slice(quarter)), ('last quarter', slice(-quarter, None))):
      cells = ''.join(f'{np.median(phase[name][part]):>14.4g}' for name in LABELS)
      print(f'{f"phase {number}, {title}":<24}{cells}')


def _write(path: pathlib.Path, samples: Sequence[Sample]) -> None:
  with atomic_file(path) as temporary, temporary.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow([field.name for field in dataclasses.fields(Sample)])
    writer.writerows(dataclasses.astuple(sample) for sample in samples)


def _plot(path: pathlib.Path, phases: Sequence[Columns], borders: Sequence[int]) -> pathlib.Path:
  from matplotlib.figure import Figure  # late: importing it takes a second

  figure = Figure(figsize=(9, 5), layout='constrained')
  for axes, (name, label) in zip(figure.subplots(2, 2).ravel(), LABELS.items(), strict=True):
    for phase in phases:
      axes.plot(phase['step'], phase[name], '.', markersize=3)
    for border in borders:
      axes.axvline(border, color='0.6', linestyle='--')
    axes.set(xlabel='step', ylabel=label, ylim=(0, None))
    axes.grid(alpha=0.3)
  return save_figure(figure, path)
