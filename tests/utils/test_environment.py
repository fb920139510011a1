"""The version of the code: only of a checkout that is the package's own, and never a reason to wait or to fail."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import dgnet_jax
from dgnet_jax.utils import environment
from dgnet_jax.utils.environment import describe_code

needs_git = pytest.mark.skipif(shutil.which('git') is None, reason='git is not installed')
ONLY_VERSION = {'version': dgnet_jax.__version__}


def git(folder, *arguments):
  names = ('-c', 'user.name=a', '-c', 'user.email=a@example.org', '-c', 'commit.gpgsign=false')
  result = subprocess.run(['git', *names, *arguments], cwd=folder, capture_output=True, text=True, check=True)
  return result.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  for name in ('GIT_DIR', 'GIT_WORK_TREE', 'GIT_INDEX_FILE'):
    monkeypatch.delenv(name, raising=False)
  root = tmp_path / 'checkout'
  for name in ('dgnet_jax/main.py', 'configs/market.py', 'README.md'):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text('1\n')
  git(root, 'init', '--quiet')
  git(root, 'add', '.')
  git(root, 'commit', '--quiet', '--message=first')
  return root


@needs_git
def test_commit_and_changes_of_the_code_are_named(checkout):
  clean = {**ONLY_VERSION, 'commit': git(checkout, 'rev-parse', 'HEAD'), 'dirty': False}
  assert describe_code(checkout) == clean
  (checkout / 'README.md').write_text('2\n')  # no run depends on it
  assert describe_code(checkout) == clean
  for name in ('dgnet_jax/main.py', 'configs/new.py'):
    before = (checkout / name).read_text() if (checkout / name).exists() else None
    (checkout / name).write_text('2\n')
    assert describe_code(checkout) == clean | {'dirty': True}
    (checkout / name).unlink() if before is None else (checkout / name).write_text(before)
  assert describe_code(checkout) == clean


@needs_git
def test_variables_of_the_caller_name_no_other_repository(checkout, tmp_path, monkeypatch):
  expected = describe_code(checkout)
  git(tmp_path, 'init', '--quiet', 'other')
  monkeypatch.setenv('GIT_DIR', str(tmp_path / 'other' / '.git'))
  assert describe_code(checkout) == expected


@needs_git
def test_a_repository_further_up_is_not_that_of_the_package(checkout):
  broken = checkout / 'site-packages'
  (broken / '.git').mkdir(parents=True)
  assert describe_code(broken) == ONLY_VERSION


def test_git_is_not_run_outside_a_checkout(tmp_path, monkeypatch):
  monkeypatch.setattr(subprocess, 'run', lambda *_, **__: pytest.fail('git was run'))
  assert describe_code(tmp_path) == ONLY_VERSION


@pytest.mark.parametrize(
  'script', [None, 'exec sleep 30', 'echo refused >&2; exit 128', 'echo "# branch.oid (initial)"', '']
)
def test_git_may_be_missing_slow_or_of_no_help(tmp_path, monkeypatch, script):
  (tmp_path / 'root' / '.git').mkdir(parents=True)
  (tmp_path / 'bin').mkdir()
  if script is not None:
    (tmp_path / 'bin' / 'git').write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n')
    (tmp_path / 'bin' / 'git').chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
  monkeypatch.setattr(environment, 'GIT_SECONDS', 0.5)
  assert describe_code(tmp_path / 'root') == ONLY_VERSION


def test_versions_are_found_without_importing_the_packages():
  code = (
    'import json, sys\n'
    'from dgnet_jax.utils.environment import describe_environment\n'
    'found = describe_environment()\n'
    'assert not {"jax", "flax", "numpy", "tensorflow"} & sys.modules.keys()\n'
    'print(json.dumps(found))'
  )
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  found = json.loads(result.stdout)
  assert found['packages']['jax'] == jax.__version__ and found['packages']['numpy'] == np.__version__
  assert found['python'] == sys.version.split()[0] and found['code']['version'] == dgnet_jax.__version__
  assert None not in found['packages'].values() and found['platform'] and found['host']
