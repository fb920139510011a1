"""`python -m dgnet_jax.main` and `python -m tools.NAME` are entry points to the commands of `dgnet`."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

from dgnet_jax import main
from dgnet_jax.cli import train
from dgnet_jax.cli.command import execute, parse
from dgnet_jax.cli.main import COMMANDS
from tests.conftest import REPO


def run(*arguments):
  return subprocess.run([sys.executable, '-m', *arguments], capture_output=True, text=True, cwd=REPO, check=False)


@pytest.mark.parametrize('mode', train.MODES)
def test_mode_selects_the_job(mode, monkeypatch):
  calls = []
  monkeypatch.setattr(train, 'run', lambda mode, options: calls.append((mode, options.workdir, options.overrides)))
  execute(main.COMMAND, ['--config=synthetic', '--workdir=w', f'--mode={mode}', '--config.seed=1'])
  assert calls == [(mode, pathlib.Path('w'), {'seed': '1'})]


def test_default_mode_is_train():
  assert parse(main.COMMAND, ['--config=configs/market.py', '--workdir=w']).mode == 'train'


def test_help_has_an_example_and_says_where_fields_are_documented():
  result = run('dgnet_jax.main', '--help')
  assert result.returncode == 0
  assert 'usage: python -m dgnet_jax.main' in result.stdout
  assert '--config=configs/synthetic.py --workdir=runs/synthetic' in result.stdout
  assert 'dgnet_jax/config/schema.py' in result.stdout


def test_mistakes_are_reported_before_anything_is_written(tmp_path):
  workdir = tmp_path / 'run'
  result = run('dgnet_jax.main', '--config=configs/market.py', f'--workdir={workdir}', '--config.batch_sise=4')
  assert result.returncode == 2
  assert 'did you mean batch_size?' in result.stderr
  assert 'data.root' in result.stderr
  assert 'Traceback' not in result.stderr
  assert not workdir.exists()


TOOLS = sorted((REPO / 'tools').glob('[!_]*.py'))


# The soak test needs the checkout: its jobs and what is compared are those of tests/soak.
@pytest.mark.parametrize('path', [path for path in TOOLS if path.stem != 'soak'], ids=lambda path: path.stem)
def test_tools_are_thin_entry_points(path):
  module = importlib.import_module(f'tools.{path.stem}')
  assert module.COMMAND in COMMANDS.values()
  assert module.__doc__ == f'`python -m tools.{path.stem}`: the same as `dgnet {module.COMMAND.name}`.'
  assert len(ast.parse(path.read_text()).body) == 4  # docstring, two imports, the call


def test_tool_runs_its_command(tmp_path):
  result = run('tools.check_data', f'--root={tmp_path / "absent"}')
  assert result.returncode == 2 and 'absent' in result.stderr
