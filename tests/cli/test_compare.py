"""`dgnet compare` through its real flags."""

import json
import subprocess
import sys

import pytest

from dgnet_jax.cli.main import main
from tests.reports.run_folders import rankings, write_run


@pytest.fixture
def runs(tmp_path):
  return [
    str(write_run(tmp_path / f'run_{i}', settings={'seed': i}, results={'evaluation': rankings(both=0.5 + 0.1 * i)}))
    for i in range(2)
  ]


def test_comparison_is_printed_and_written(runs, tmp_path, capsys):
  out = tmp_path / 'new' / 'x.json'
  main(['compare', *runs, f'--out={out}'])
  printed = capsys.readouterr().out
  assert '50.00' in printed and '60.00 (+10.00)' in printed and f'comparison: {out}' in printed
  assert json.loads(out.read_text())['settings that differ'] == {'seed': {'values': [0, 1]}}


@pytest.mark.parametrize(
  ('names', 'words'),
  [
    (['run_0'], 'name at least two runs'),
    (['run_0', 'nowhere'], 'nowhere: no such folder'),
    (['run_0', 'run_0/evaluation'], 'evaluation: not the work folder of a run: there is no config.json in it'),
    (['run_0', 'run_1', '--out=x.txt'], 'the name must end in .json or .csv'),
  ],
)
def test_mistakes_are_one_line(runs, tmp_path, monkeypatch, capsys, names, words):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as caught:
    main(['compare', *names])
  output = capsys.readouterr()
  assert caught.value.code == 2 and not output.out
  assert output.err.startswith('error: ') and words in output.err and len(output.err.splitlines()) == 1


def test_neither_jax_nor_tensorflow_is_imported(runs):
  code = (
    'import sys\n'
    'from dgnet_jax.cli.main import main\n'
    'main(["compare", *sys.argv[1:]])\n'
    'assert not {"jax", "tensorflow", "matplotlib"} & sys.modules.keys()'
  )
  subprocess.run([sys.executable, '-c', code, *runs], capture_output=True, check=True)
