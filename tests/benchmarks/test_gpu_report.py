"""The report on an accelerator, on the CPU: its tables, and real processes with tiny networks."""

import json
import os
import subprocess
import sys

import pytest

from dgnet_jax.benchmarks.report_cases import CASES, Case, case_config
from dgnet_jax.benchmarks.report_text import IMAGES, report_text
from dgnet_jax.cli.main import main
from tests.conftest import REPO
from tests.exhaustive import EXHAUSTIVE

# Python runs this file when it starts: for all processes of the report, what an accelerator may lack is not installed.
WITHOUT = """
import sys

class Without:
  def __init__(self, finder):
    self.finder = finder

  def find_spec(self, name, path=None, target=None):
    missing = name.split('.')[0] in ('ml_collections', 'tensorflow', 'tensorflow_datasets')
    return None if missing else self.finder.find_spec(name, path, target)

  def __getattr__(self, name):
    return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""
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
  text = report_text([FAST, PLAIN, LATE], results, [])
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


@EXHAUSTIVE
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


RUN = {
  'precision': 'bfloat16',
  'batch_size': 8,
  'image_size_hw': (256, 128),
  'train_seconds': 400,
  'device': 'a card',
  'jax': '1.2',
  'seconds': {'start': 9.0, 'data': 21.04, 'teacher': 60.0, 'training': 310.0},
  'problems': ['Time was up in stage training, 310.0 s, 1500 of 10000 steps.'],
  'teacher': {
    'steps': 1280,
    'num_steps': 1280,
    'step_seconds': 0.025,
    'images_per_second': 1280.0,
    'first_step_seconds': None,
  },
  'training': {
    'steps': 1500,
    'num_steps': 10000,
    'step_seconds': 0.1,
    'images_per_second': 320.0,
    'first_step_seconds': 160.0,
  },
}
EVALUATED = {
  'step': 1500,
  'scores': {'primary': {'rank_1': 0.5, 'mAP': 0.25}},
  'image_quality': {'cross': {'count': 256, 'psnr': 20.0, 'ssim': 0.75, 'colour_error': 9.0}},
  'sheets': ['run/generated/step_0001500/sheet_000.png', 'run/generated/step_0001500/sheet_001.png'],
  'ground_truth_sheet': 'run/evaluation/ground_truth.png',
}


def test_report_of_a_run_has_what_is_known_of_it():
  text = report_text([], {'run': RUN}, [])
  assert '## A run at 256x128' in text and 'a card, jax 1.2.' in text and RUN['problems'][0] in text
  assert '| data | 21.0 s |' in text and 'evaluat' not in text and '![' not in text
  assert '| teacher | 1280 of 1280 | 0.0250 s | 1280 |  |' in text
  assert '| DG-Net | 1500 of 10000 | 0.1000 s | 320 | 160.0 s |' in text
  text = report_text([], {'run': RUN | EVALUATED}, [])
  assert 'Step 1500' in text and '| primary | 50.0% | 25.0% |' in text
  assert '| cross images | 20.00 | 0.750 | 9.0 |  |' in text
  assert '(run/generated/step_0001500/sheet_000.png)' in text and '(run/evaluation/ground_truth.png)' in text


def report_on_a_run(out, *arguments):
  """What report.json holds of a run on the CPU, in processes without ml_collections and TensorFlow, and report.md."""
  folder = out / 'without'
  folder.mkdir()
  (folder / 'sitecustomize.py').write_text(WITHOUT)
  environment = os.environ | {'PYTHONPATH': f'{folder}{os.pathsep}{REPO}', 'JAX_PLATFORMS': 'cpu'}
  environment.pop('XLA_FLAGS', None)  # the tests' eight devices
  command = [sys.executable, '-m', 'tools.gpu_report', f'--out={out}', '--tiny', '--no-tests', *arguments]
  subprocess.run(command, cwd=REPO, env=environment, check=True)
  return json.loads((out / 'report.json').read_text()), (out / 'report.md').read_text()


@EXHAUSTIVE
@pytest.mark.long
def test_run_is_trained_and_evaluated(tmp_path):
  arguments = ['--no-cases', '--train-seconds=1200', '--evaluate-seconds=1200', '--train-precision=float32']
  results, text = report_on_a_run(tmp_path, *arguments)
  run = results['run']
  assert not run['problems'] and list(run['seconds']) == [
    'start',
    'data',
    'teacher',
    'training',
    'images',
    'evaluation',
  ]
  assert run['teacher']['steps'] == run['training']['steps'] == run['step'] == 30
  assert run['training']['step_seconds'] > 0 and 0 < run['training']['first_step_seconds'] < run['seconds']['training']
  assert run['scores'].keys() == {'chance', 'teacher', 'primary', 'fine_grained', 'both'}
  assert run['image_quality'].keys() == IMAGES.keys() and 'psnr' in run['image_quality']['cross']
  assert all((tmp_path / path).is_file() for path in [*run['sheets'], run['ground_truth_sheet']])
  assert f'({run["sheets"][0]})' in text and (tmp_path / 'run' / 'config.json').is_file()


def test_time_limit_before_the_training_is_reported_with_the_cases(tmp_path):
  results, text = report_on_a_run(tmp_path, '--cases', '0', '--compile-seconds=0', '--train-seconds=1')
  assert results[CASES[0].name]['left_out'].startswith('not compiled in time')
  (problem,) = results['run']['problems']
  assert 'training' not in results['run'] and 'scores' not in results['run'] and problem in text
  assert problem.startswith(('Time was up in stage ', 'The process that should train did not end in time'))


def test_run_that_fails_is_reported(tmp_path):
  (tmp_path / 'run' / 'synthetic_data').mkdir(parents=True)
  (tmp_path / 'run' / 'synthetic_data' / 'file').write_text('')
  results, text = report_on_a_run(tmp_path, '--no-cases', '--train-seconds=600')
  (problem,) = results['run']['problems']
  assert problem.startswith('The process that should train failed') and problem in text
  assert 'contains other files than the built-in pedestrians' in problem and results['run']['device']


def test_something_must_be_measured(tmp_path, capsys):
  with pytest.raises(SystemExit, match='2'):
    main(['gpu-report', f'--out={tmp_path / "out"}', '--no-cases', '--no-tests'])
  assert 'there is nothing to measure' in capsys.readouterr().err and not (tmp_path / 'out').exists()
