"""The report on an accelerator, on the CPU: its table, and real processes with tiny networks."""

import json
import subprocess
import sys

import pytest

from dgnet_jax.benchmarks.gpu_report import report_text
from dgnet_jax.benchmarks.report_cases import CASES, Case, case_config
from tests.conftest import REPO

FAST, PLAIN, LATE = Case('bfloat16', 32), Case('bfloat16', 32, plain=True), Case('tf32', 8, warmup=True)


def measurement(seconds):
  return {
    'device': 'a card',
    'jax': '1.2',
    'seconds': seconds,
    'images_per_second': 128 / seconds,
    'product_flops': 2e12,
    'peak_flops': 8e12,
    'share_of_peak': 0.25 / seconds,
    'xla_peak_bytes': 3e9,
    'compile_seconds': 60,
    'operations': [],
  }


def test_table_has_every_case_and_the_ratio_to_the_plain_formulation():
  results = {
    FAST.name: measurement(0.5),
    PLAIN.name: measurement(1.25),
    LATE.name: {'left_out': 'not compiled in time'},
  }
  text = report_text([FAST, PLAIN, LATE], results)
  assert '| adain, last phase, bfloat16, batch 32 | 0.500 s | 256 | 2 | 50.0% | 3.0 GB | 60 s | 2.50 |' in text
  assert '| adain, first phase, tf32, batch 8 | not compiled in time |' in text
  assert 'a card, jax 1.2. TFLOP/s of a large matrix product: bfloat16 8.' in text


def test_cases_are_different_and_have_a_config():
  assert len({case.name for case in CASES}) == len(CASES)
  for case in CASES:
    config = case_config(case)
    assert config.batch_size == case.batch_size and config.generator.design == case.design
    assert (config.compute_dtype == 'bfloat16') == (case.precision == 'bfloat16')


def test_it_runs_without_ml_collections_and_tensorflow():
  blocked = '("ml_collections", "tensorflow", "tensorflow_datasets")'
  code = (
    f'import sys\nfor name in {blocked}: sys.modules[name] = None\n'
    'import tools.gpu_report, dgnet_jax.cli.main, dgnet_jax.benchmarks.programs, dgnet_jax.benchmarks.traces'
  )
  subprocess.run([sys.executable, '-c', code], cwd=REPO, check=True)


@pytest.mark.long
def test_cases_take_turns_in_processes_of_their_own(tmp_path):
  command = [sys.executable, '-m', 'tools.gpu_report', f'--out={tmp_path}', '--tiny', '--no-tests', '--cases', '0', '8']
  subprocess.run([*command, '--compile-seconds=600'], cwd=REPO, check=True)
  results = json.loads((tmp_path / 'report.json').read_text())
  assert list(results) == [CASES[0].name, CASES[8].name]
  assert all(result['images_per_second'] > 0 and result['share_of_peak'] > 0 for result in results.values())
  assert len(results[CASES[0].name]['operations']) == 30 and list((tmp_path / 'trace').rglob('*.xplane.pb'))


def test_case_that_is_not_compiled_in_time_is_named(tmp_path):
  command = [sys.executable, '-m', 'tools.gpu_report', f'--out={tmp_path}', '--tiny', '--no-tests', '--cases', '0']
  subprocess.run([*command, '--compile-seconds=0'], cwd=REPO, check=True)
  reason = json.loads((tmp_path / 'report.json').read_text())[CASES[0].name]['left_out']
  assert reason.startswith('not compiled in time') and reason in (tmp_path / 'report.md').read_text()
