import importlib.metadata

import pytest

from dgnet_jax import xla_flags


@pytest.fixture
def version(monkeypatch):
  def pretend(number):
    monkeypatch.setattr(importlib.metadata, 'version', lambda name: number)

  pretend('0.10.2')
  return pretend


def test_flag_joins_what_the_user_set(version):
  environ = {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_dump_to=x'}
  assert xla_flags.set_cpu_flags(environ)
  assert environ['XLA_FLAGS'] == f'--xla_dump_to=x {xla_flags.FAST_CPU_CONVOLUTIONS}'


def test_a_choice_of_the_user_stays(version):
  flags = '--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INVALID'
  environ = {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
  assert not xla_flags.set_cpu_flags(environ)
  assert environ['XLA_FLAGS'] == flags


@pytest.mark.parametrize('number', ['0.9.2', '0.11.2', '1.0.0'])
def test_unknown_versions_get_no_flag(version, number):
  version(number)
  environ = {'JAX_PLATFORMS': 'cpu'}
  assert not xla_flags.set_cpu_flags(environ)
  assert 'XLA_FLAGS' not in environ


@pytest.mark.parametrize('platforms', ['cuda', 'tpu,cpu'])
def test_accelerators_get_no_flag(version, platforms):
  assert not xla_flags.set_cpu_flags({'JAX_PLATFORMS': platforms})
