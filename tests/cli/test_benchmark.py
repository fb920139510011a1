"""The benchmarks run at tiny sizes; what they say is looked at by people."""

import re

import jax
import pytest

from dgnet_jax.cli import benchmark
from dgnet_jax.config.loading import save_config
from tests.data.folders import write_market
from tests.tiny_run import tiny_config


def ratios(text):
  return {name.strip(): float(ratio) for name, ratio in re.findall(r'^  (\S.*?) +[\d.]+ s +([\d.]+)x$', text, re.M)}


def test_ranking(capsys):
  sizes = {'queries': 12, 'gallery': 90, 'people': 9, 'size': 8, 'distractors': 10, 'junk': 5, 'rounds': 1}
  benchmark.main(['ranking', *(f'--{name}={value}' for name, value in sizes.items())])
  found = ratios(capsys.readouterr().out)
  assert list(found) == ['matrix product', 'rank', 'sort per query'] and found['matrix product'] == 1


def test_input(tmp_path, capsys):
  root = write_market(tmp_path)
  benchmark.main(['input', f'--root={root}', '--loaders=memory,threads', '--batches=2', '--rounds=1', '--threads=2'])
  text = capsys.readouterr().out
  assert list(ratios(text)) == ['one thread', 'memory', 'threads'] and text.count('images/s') == 3


def test_step(tmp_path, capsys):
  config = tiny_config()
  config.batch_size, config.num_steps, config.joint, config.teaching.images = 8, 1, False, 'ground_truth'
  config.ramps.teaching.initial = 1.0
  save_config(config, tmp_path / 'config.json')
  benchmark.main(['step', f'--config={tmp_path / "config.json"}', '--people=4', '--steps=1', '--rounds=1'])
  text = capsys.readouterr().out
  assert re.findall('^(.*), batch 8$', text, re.M) == ['teacher', 're-id network alone from step 0']
  assert text.count('XLA defaults') == text.count('examples/s') == 2


def test_step_says_what_is_wrong_with_the_config(tmp_path, capsys):
  with pytest.raises(SystemExit, match='2'):
    benchmark.main(['step', f'--config={tmp_path / "nonesuch.json"}'])
  assert 'nonesuch.json: no such config file' in capsys.readouterr().err
  config = tiny_config()
  config.batch_size, config.reid.batch_norm_group = 2 * jax.device_count() - 1, 0
  if config.batch_size == 1:
    pytest.skip('needs virtual devices: XLA_FLAGS=--xla_force_host_platform_device_count=8')
  save_config(config, tmp_path / 'config.json')
  with pytest.raises(SystemExit, match='2'):
    benchmark.main(['step', f'--config={tmp_path / "config.json"}'])
  assert (
    f'batch_size: {config.batch_size} does not divide among {jax.device_count()} devices' in capsys.readouterr().err
  )


def test_parts_take_turns_and_may_tell_their_own_time():
  turns = []
  seconds = benchmark.take_turns({'a': lambda: turns.append('a'), 'b': lambda: turns.append('b') or 2.0}, rounds=3)
  assert ''.join(turns) == 'abababab' and seconds['b'] == 2


def test_help_shows_an_example(capsys):
  with pytest.raises(SystemExit):
    benchmark.main(['--help'])
  assert 'python -m tools.benchmark ranking' in capsys.readouterr().out
