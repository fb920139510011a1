"""Memory of the process: kept from step to step on CPU, left to the system elsewhere."""

import platform
import resource
import subprocess
import sys

import pytest

from dgnet_jax.utils import host_memory
from dgnet_jax.utils.host_memory import USER_SETTINGS, keep_host_memory

# The fewest page faults of a call of a function that makes an array of 64 MB: the first calls may need new memory.
_PROGRAM = """
import resource
from dgnet_jax.utils.host_memory import keep_host_memory
assert not {keep} or keep_host_memory()
import jax, jax.numpy as jnp
function = jax.jit(jnp.matmul)
x, y = jnp.ones((2**22, 4)), jnp.ones((4, 4))
counts = []
for _ in range(20):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  function(x, y).block_until_ready()
  counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(counts))
"""


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
  for name in (*USER_SETTINGS, 'JAX_PLATFORMS'):
    monkeypatch.delenv(name, raising=False)


def _page_faults(keep: bool) -> int:
  program = _PROGRAM.format(keep=keep)
  environment = {'JAX_PLATFORMS': 'cpu', 'PATH': ''}
  result = subprocess.run(
    [sys.executable, '-c', program], env=environment, check=True, capture_output=True, text=True, timeout=120
  )
  return int(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the settings are those of glibc')
def test_memory_of_a_call_is_used_again():
  pages = 2**26 // resource.getpagesize()
  assert _page_faults(keep=True) < pages / 100
  assert _page_faults(keep=False) > pages / 2


@pytest.mark.parametrize('name', USER_SETTINGS)
def test_settings_of_the_user_win(name, monkeypatch):
  monkeypatch.setenv(name, '1')
  assert not keep_host_memory()


def test_processes_with_accelerators_are_left_alone(monkeypatch):
  monkeypatch.setattr(host_memory.ctypes, 'CDLL', lambda name: pytest.fail('mallopt was called'))
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda,cpu')
  assert not keep_host_memory()
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setattr(host_memory.importlib.util, 'find_spec', lambda name: name == 'libtpu' or None)
  assert not keep_host_memory()


def test_libraries_without_the_function_are_left_alone(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setattr(host_memory.ctypes, 'CDLL', lambda name: object())
  assert not keep_host_memory()
