"""A report on one accelerator: step time, memory and share of its peak for the networks of `configs/market.py`.

Every case is a process of its own: all of them trace and compile at the same time, which takes most of the time, and
then take turns on the device. Nothing here needs TensorFlow, ml_collections or a data set.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time
from typing import Any

from dgnet_jax.benchmarks.report_cases import READY, Case
from dgnet_jax.utils.atomic_files import atomic_file, write_json

TESTS = ('tests/losses', 'tests/benchmarks/test_costs.py')  # need neither TensorFlow nor ml_collections


class _Worker:
  """The process of one case."""

  def __init__(self, command: Sequence[str], log: pathlib.Path) -> None:
    environment = os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', 'TF_CPP_MIN_LOG_LEVEL': '3'}
    self._path, self._log = log, log.open('w')
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
    )
    self._lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=self._read, daemon=True).start()

  def _read(self) -> None:
    assert self._process.stdout is not None
    for line in self._process.stdout:
      self._lines.put(line.strip())
    self._lines.put('')  # the end

  def line(self, seconds: float) -> str | None:
    """Returns the next line: '' if the process has ended, None if none comes in time."""
    try:
      return self._lines.get(timeout=max(0.01, seconds))
    except queue.Empty:
      return None

  def stage(self) -> str:
    """Returns the last line of the log: what the process was doing."""
    lines = self._path.read_text(errors='replace').split('\n')
    return next((line for line in reversed(lines) if line.strip()), 'nothing was logged')

  def go(self) -> None:
    """Lets the process measure."""
    assert self._process.stdin is not None
    self._process.stdin.write('go\n')
    self._process.stdin.flush()

  def stop(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.wait()
    self._log.close()


def run_report(
  out: pathlib.Path,
  cases: Sequence[Case],
  *,
  tiny: bool = False,
  with_tests: bool = True,
  compile_seconds: float,
  measure_seconds: float,
) -> dict[str, Any]:
  """Measures cases, each in a process of its own, and writes report.json and report.md.

  Args:
    out: folder of the report, the logs of the processes and the trace of the first case.
    cases: most important first.
    tiny: as in `case_config`.
    with_tests: also run the tests of `TESTS` on the device, while the cases compile, if there is a checkout.
    compile_seconds: cases that are not compiled after this time are left out.
    measure_seconds: time to measure all the others.

  Returns:
    What report.json holds: by the name of each case its measurements, or {'left_out': the reason}; and under tests the
    last line that pytest printed.
  """
  start = time.monotonic()
  tests = _start_tests(out) if with_tests else None
  workers: dict[str, _Worker] = {}
  results: dict[str, Any] = {}
  try:
    for number, case in enumerate(cases):
      command = [sys.executable, '-m', 'dgnet_jax.cli.main', 'gpu-report', '--out', str(out)]
      command += ['--case', json.dumps(dataclasses.asdict(case))]
      command += [*(['--tiny'] if tiny else []), *(['--profile'] if not number else [])]
      workers[case.name] = _Worker(command, out / f'case_{number}.log')
    for name, message in _compiled(workers, start + compile_seconds):
      print(f'{time.monotonic() - start:6.0f} s  {name}: {message or "compiled"}', flush=True)
      if message:
        results[name] = {'left_out': message}
        workers.pop(name).stop()
    if tests is not None:
      results['tests'] = _result_of_tests(tests, out, start + compile_seconds)
      print(f'{time.monotonic() - start:6.0f} s  tests: {results["tests"]}', flush=True)
    deadline = time.monotonic() + measure_seconds
    for name, worker in workers.items():
      worker.go()
      line = worker.line(deadline - time.monotonic())
      reason = f'failed ({worker.stage()})' if line == '' else 'no time left to measure'
      results[name] = json.loads(line) if line else {'left_out': reason}
      print(f'{time.monotonic() - start:6.0f} s  {name}: {_summary(results[name])}', flush=True)
      worker.stop()
      _write(out, cases, results)
  finally:
    for worker in workers.values():
      worker.stop()
    if tests is not None:
      tests.kill()
  _write(out, cases, results)
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


def _compiled(workers: Mapping[str, _Worker], deadline: float) -> Iterator[tuple[str, str]]:
  """Waits for workers to compile; yields their names, with '' or the reason why they did not."""
  for name, worker in list(workers.items()):
    line = worker.line(deadline - time.monotonic())
    reason = f'not compiled in time ({worker.stage()})' if line is None else f'failed ({worker.stage()})'
    yield name, '' if line == READY else reason


def _summary(result: Mapping[str, Any]) -> str:
  if 'left_out' in result:
    return str(result['left_out'])
  return f'{result["seconds"]:.3f} s, {result["images_per_second"]:.0f} images/s, {result["share_of_peak"]:.1%} of peak'


def _write(out: pathlib.Path, cases: Sequence[Case], results: Mapping[str, Any]) -> None:
  write_json(out / 'report.json', dict(results))
  with atomic_file(out / 'report.md') as path:
    path.write_text(report_text(cases, results))


def report_text(cases: Sequence[Case], results: Mapping[str, Any]) -> str:
  """Formats results as Markdown: a table of the cases, and one of the longest operations.

  Args:
    cases: in the order of the table.
    results: by name; those without an entry have not been measured yet.
  """
  measured = {case.name: results[case.name] for case in cases if 'seconds' in results.get(case.name, ())}
  lines = ['# Training steps on one device', '']
  if measured:
    first = next(iter(measured.values()))
    peaks = {case.precision: measured[case.name]['peak_flops'] for case in cases if case.name in measured}
    rates = ', '.join(f'{precision} {peak / 1e12:.3g}' for precision, peak in peaks.items())
    lines += [f'{first["device"]}, jax {first["jax"]}. TFLOP/s of a large matrix product: {rates}.', '']
  if 'tests' in results:
    lines += [f'Tests on it ({", ".join(TESTS)}): {results["tests"]}', '']
  headings = ('case', 'step', 'images/s', 'TFLOP', 'of peak', 'memory', 'compile', 'speed, plain = 1')
  lines += ['| ' + ' | '.join(headings) + ' |', '| --- ' * len(headings) + '|']
  for case in cases:
    result = results.get(case.name, {'left_out': 'not measured'})
    if 'left_out' in result:
      lines.append(f'| {case.name} | {result["left_out"]} |' + ' |' * (len(headings) - 2))
      continue
    plain = measured.get(dataclasses.replace(case, plain=True).name)
    cells = [
      case.name,
      f'{result["seconds"]:.3f} s',
      f'{result["images_per_second"]:.0f}',
      f'{result["product_flops"] / 1e12:.3g}',
      f'{result["share_of_peak"]:.1%}',
      f'{result["xla_peak_bytes"] / 1e9:.1f} GB',
      f'{result["compile_seconds"]:.0f} s',
      f'{plain["seconds"] / result["seconds"]:.2f}' if plain else '',
    ]
    lines.append('| ' + ' | '.join(cells) + ' |')
  for name, result in measured.items():
    if result['operations']:
      lines += ['', f'Longest operations: {name}', '', '| share of time | operation | from |', '| --- | --- | --- |']
      lines += [f'| {share:.1%} | {operation} | {source} |' for share, operation, source in result['operations']]
  return '\n'.join(lines) + '\n'
