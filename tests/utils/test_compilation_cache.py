"""Compiled programs are kept between commands, and what a killed process left does no harm."""

import os
import subprocess
import sys

import pytest

from dgnet_jax.utils import compilation_cache
from tests.conftest import REPO

SETTINGS = (
  *compilation_cache.USER_SETTINGS,
  'JAX_COMPILATION_CACHE_MAX_SIZE',
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS',
)


@pytest.fixture
def environment(monkeypatch, tmp_path):
  for name in SETTINGS:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  return os.environ


def use():
  """Calls the function under test; what it sets is undone with the test."""
  before = {name: os.environ.get(name) for name in SETTINGS}
  compilation_cache.use_compilation_cache()
  chosen = {name: os.environ[name] for name in SETTINGS if name in os.environ}
  for name, value in before.items():
    if value is None:
      os.environ.pop(name, None)
  return chosen


def test_jax_gets_a_bounded_folder_for_this_processor(environment, tmp_path):
  chosen = use()
  assert chosen['JAX_COMPILATION_CACHE_DIR'] == str(compilation_cache.cache_folder())
  assert compilation_cache.cache_folder().parent == tmp_path / 'dgnet_jax' and compilation_cache.cache_folder().is_dir()
  assert int(chosen['JAX_COMPILATION_CACHE_MAX_SIZE']) == compilation_cache.MAX_BYTES


@pytest.mark.parametrize('name', compilation_cache.USER_SETTINGS)
def test_the_users_settings_count(environment, monkeypatch, tmp_path, name):
  monkeypatch.setenv(name, 'false')
  assert use() == {name: 'false'} and not (tmp_path / 'dgnet_jax').exists()


def test_a_folder_that_cannot_be_written_is_no_error(environment, monkeypatch, tmp_path):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  assert not use()


def test_a_relative_cache_home_is_ignored(environment, monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', 'cache')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert compilation_cache.cache_folder().is_relative_to(tmp_path / '.cache')


def test_another_processor_has_another_folder(environment, monkeypatch):
  ours = compilation_cache.cache_folder()
  monkeypatch.setattr(compilation_cache, '_processor', lambda: '0123456789ab')
  assert compilation_cache.cache_folder() != ours


def test_programs_that_were_not_written_to_the_end_are_removed(environment):
  folder = compilation_cache.cache_folder()
  folder.mkdir(parents=True)
  for name in ('jit_a-1-cache', 'jit_a-1-atime', 'jit_b-2-cache'):
    (folder / name).write_bytes(b'12345678')
  use()
  assert {path.name for path in folder.glob('jit*')} == {'jit_a-1-cache', 'jit_a-1-atime'}


def run_command(tmp_path, *flags):
  """Runs a command that compiles something; returns the number of programs that are kept afterwards."""
  environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
  environment |= {'XDG_CACHE_HOME': str(tmp_path), 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
  code = (
    'import argparse\n'
    'from dgnet_jax.cli.command import Command, main\n'
    'def run(options):\n'
    '  import jax\n'
    '  print(jax.jit(lambda x: x + 1)(1.0))\n'
    "main(Command('test', 'test', '', lambda parser: None, run), 'test')"
  )
  subprocess.run([sys.executable, '-W', 'error', '-c', code, *flags], cwd=REPO, env=environment, check=True)
  return len(list(tmp_path.rglob('*-cache')))


def test_commands_keep_programs_unless_told_not_to(tmp_path):
  assert run_command(tmp_path, '--no-compilation-cache') == 0
  kept = run_command(tmp_path)
  assert kept > 0 and run_command(tmp_path) == kept


def test_a_damaged_program_is_compiled_again(tmp_path):
  kept = run_command(tmp_path)
  for path in tmp_path.rglob('*-cache'):
    path.write_bytes(path.read_bytes()[:20])
    path.with_name(path.name.removesuffix('-cache') + '-atime').unlink()
  assert run_command(tmp_path) == kept
