"""A report on one accelerator: step time, memory and share of its peak for the networks of `configs/market.py`.

Every case is a process of its own: all of them trace and compile at the same time, which takes most of the time, and
then take turns on the device. After them, a run is trained for a given time. Nothing here needs TensorFlow,
ml_collections or a data set.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from dgnet_jax.benchmarks.report_cases import READY, Case
from dgnet_jax.benchmarks.report_processes import Worker
from dgnet_jax.benchmarks.report_run import FOLDER, TimedRun, run_config
from dgnet_jax.benchmarks.report_text import report_text
from dgnet_jax.training.data_record import saved_steps
from dgnet_jax.utils.atomic_files import atomic_file, write_json

TESTS = ('tests/losses', 'tests/benchmarks/test_costs.py')  # need neither TensorFlow nor ml_collections


def run_report(
  out: pathlib.Path,
  cases: Sequence[Case],
  run: TimedRun | None = None,
  *,
  tiny: bool = False,
  with_tests: bool = True,
  compile_seconds: float,
  measure_seconds: float,
) -> dict[str, Any]:
  """Measures cases, each in a process of its own, then trains a run, and writes report.json and report.md.

  Args:
    out: folder of the report, the logs of the processes, the trace of the first case and the work folder of the run.
    cases: most important first.
    run: the run; None trains none.
    tiny: as in `case_config` and `run_config`.
    with_tests: also run the tests of `TESTS` on the device, while the cases compile, if there is a checkout.
    compile_seconds: cases that are not compiled after this time are left out.
    measure_seconds: time to measure all the others.

  Returns:
    What report.json holds: by the name of each case its measurements, or {'left_out': the reason}; under tests the
    last line that pytest printed; and under run what `_run` yields.
  """
  start = time.monotonic()
  results: dict[str, Any] = {}

  def progress(name: str, message: str) -> None:
    print(f'{time.monotonic() - start:6.0f} s  {name}: {message}', flush=True)
    write_json(out / 'report.json', results)
    with atomic_file(out / 'report.md') as path:
      path.write_text(report_text(cases, results, TESTS), encoding='utf-8')

  tests = _start_tests(out) if with_tests else None
  workers: dict[str, Worker] = {}
  try:
    for number, case in enumerate(cases):
      arguments = ['--out', str(out), '--case', json.dumps(dataclasses.asdict(case))]
      arguments += [*(['--tiny'] if tiny else []), *(['--profile'] if not number else [])]
      workers[case.name] = Worker(arguments, out / f'case_{number}.log')
    for name, message in _compiled(workers, start + compile_seconds):
      if message:
        results[name] = {'left_out': message}
        workers.pop(name).stop()
      progress(name, message or 'compiled')
    if tests is not None:
      results['tests'] = _result_of_tests(tests, out, start + compile_seconds)
      progress('tests', results['tests'])
    for name, result in _measured(workers, time.monotonic() + measure_seconds):
      results[name] = result
      progress(name, _summary(result))
  finally:
    for worker in workers.values():
      worker.stop()
    if tests is not None:
      tests.kill()
  for message, results['run'] in _run(out, run, tiny=tiny) if run is not None else ():
    progress('run', message)
  return results


def _start_tests(out: pathlib.Path) -> subprocess.Popen[bytes] | None:
  checkout = pathlib.Path(__file__).parents[2]
  if not all((checkout / path).exists() for path in TESTS):  # installed without the tests
    return None
  # conftest.py would choose the CPU; warnings of newer versions are not what is tested here.
  environment = os.environ | {'JAX_PLATFORMS': os.environ.get('JAX_PLATFORMS', '')}
  command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-W', 'default', *TESTS]
  with (out / 'tests.log').open('w') as log:
    return subprocess.Popen(command, cwd=checkout, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _result_of_tests(tests: subprocess.Popen[bytes], out: pathlib.Path, deadline: float) -> str:
  try:
    tests.wait(max(0.01, deadline - time.monotonic()))
  except subprocess.TimeoutExpired:
    tests.kill()
    return 'not done in time'
  lines = (out / 'tests.log').read_text(errors='replace').split('\n')
  return next((line for line in reversed(lines) if line.strip()), 'nothing was printed')


def _compiled(workers: Mapping[str, Worker], deadline: float) -> Iterator[tuple[str, str]]:
  """Waits for workers to compile; yields their names, with '' or the reason why they did not."""
  for name, worker in list(workers.items()):
    line = worker.line(deadline - time.monotonic())
    reason = f'not compiled in time ({worker.stage()})' if line is None else f'failed ({worker.stage()})'
    yield name, '' if line == READY else reason


def _measured(workers: Mapping[str, Worker], deadline: float) -> Iterator[tuple[str, dict[str, Any]]]:
  """Lets workers measure, one after the other; yields their names and results, or the reason why there are none."""
  for name, worker in workers.items():
    worker.go()
    line = worker.line(deadline - time.monotonic())
    reason = f'failed ({worker.stage()})' if line == '' else 'no time left to measure'
    worker.stop()
    yield name, json.loads(line) if line else {'left_out': reason}


def _run(out: pathlib.Path, run: TimedRun, *, tiny: bool) -> Iterator[tuple[str, dict[str, Any]]]:
  """Trains a run, and then evaluates it and generates images, if there is a checkpoint; each in a process of its own.

  Yields:
    After each stage a line about it, and what is known: the run's settings; seconds of each stage; steps of teacher and
    DG-Net, under `teacher` and `training`; scores, image_quality and the names of sheets; and problems, sentences.
  """
  config = run_config(run, tiny=tiny)
  settings = {'precision': run.precision, 'batch_size': config.batch_size, 'image_size_hw': config.data.image_size_hw}
  result: dict[str, Any] = {**settings, 'train_seconds': run.seconds, 'seconds': {}, 'problems': []}
  yield f'training for {run.seconds} s; log in {out / "run_train.log"}', result
  for job, seconds in (('train', run.seconds), ('evaluate', run.evaluate_seconds)):
    if job == 'evaluate' and not saved_steps(out / FOLDER / 'checkpoints'):
      return
    arguments = ['--out', str(out), '--run', json.dumps({'job': job, **dataclasses.asdict(run)})]
    worker = Worker([*arguments, *(['--tiny'] if tiny else [])], out / f'run_{job}.log')
    try:
      for line in worker.lines(seconds, interrupt=job == 'train'):
        if line.startswith('{'):  # and not what a library printed
          yield _add_stage(result, json.loads(line)), result
    except (TimeoutError, ChildProcessError) as error:
      what = 'did not end in time' if isinstance(error, TimeoutError) else 'failed'
      result['problems'].append(f'The process that should {job} {what}; see run_{job}.log: {error}')
      yield result['problems'][-1], result
    finally:
      worker.stop()


def _add_stage(result: dict[str, Any], message: Mapping[str, Any]) -> str:
  """Adds what the process of a run said about a stage to the run's results, and returns a line about it."""
  stage, steps = message['stage'], message.get('steps')
  result['seconds'][stage] = message['seconds']
  result |= message['results']
  line = f'{stage}, {message["seconds"]:.1f} s'
  if steps is not None and steps['steps']:
    result[stage] = steps
    line += f', {steps["steps"]} of {steps["num_steps"]} steps'
  if message.get('stopped'):
    result['problems'].append(f'Time was up in stage {line}.')
    line += ': time is up'
  return line


def _summary(result: Mapping[str, Any]) -> str:
  if 'left_out' in result:
    return str(result['left_out'])
  return f'{result["seconds"]:.3f} s, {result["images_per_second"]:.0f} images/s, {result["share_of_peak"]:.1%} of peak'
