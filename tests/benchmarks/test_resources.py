"""What a training run needs while it goes on."""

import csv
import dataclasses

import numpy as np
import pytest

from dgnet_jax.benchmarks import resources
from dgnet_jax.benchmarks.resources import Sample, benchmark_run
from dgnet_jax.errors import UserError
from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import frozen, tiny_config


def samples(count, *, start=0, at=0.0, memory=100.0):
  """A process that takes ten steps a second and two more megabytes in each; reports every ten steps."""
  return [Sample(at + i + half / 2, start + 10 * i, memory + 2 * i, 20, 30) for i in range(count) for half in range(2)]


def test_phases_are_measured_without_their_borders():
  first = samples(20)
  # Step 200 begins the second phase and takes five seconds to compile.
  second = samples(20, start=200, at=first[-1].seconds + 5, memory=300)
  phases = resources._phases([*first, *second], [0, 200, 400])
  assert [phase['step'].tolist() for phase in phases] == [list(range(10, 200, 10)), list(range(210, 400, 10))]
  np.testing.assert_allclose(np.concatenate([phase['step_ms'] for phase in phases]), 100)
  assert phases[1]['resident_mb'][0] == 302


def test_growth_is_printed(capsys):
  resources._print_table(resources._phases(samples(41), [0, 1000]))
  _, first, last = capsys.readouterr().out.splitlines()
  assert first.split() == ['phase', '1,', 'first', 'quarter', '111', '20', '30', '100']
  assert last.split() == ['phase', '1,', 'last', 'quarter', '171', '20', '30', '100']


def test_too_few_samples_are_an_error():
  with pytest.raises(UserError, match='too short'):
    resources._phases(samples(5), [0, 1000])


def test_a_run_is_not_mixed_with_another(tmp_path):
  (tmp_path / 'run').mkdir()
  with pytest.raises(UserError, match='exists already'):
    benchmark_run(frozen(tiny_config()), tmp_path)


def test_a_failed_training_says_where_its_log_is(tmp_path):
  config = frozen(tiny_config())
  missing = dataclasses.replace(config, data=dataclasses.replace(config.data, layout='market1501', root='absent'))
  with pytest.raises(UserError, match=r'status 2; .*train\.txt says why'):
    benchmark_run(missing, tmp_path)


@EXHAUSTIVE
@pytest.mark.long
def test_a_run_is_measured_and_plotted(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(resources, 'SECONDS_BETWEEN_SAMPLES', 0.1)
  config = tiny_config()
  config.joint, config.batch_size, config.num_steps = False, 8, 400
  config.log.update(progress_every_steps=1, checkpoint_every_steps=100)
  config.data.synthetic.image_size_hw = (32, 16)
  benchmark_run(frozen(config), tmp_path)
  assert capsys.readouterr().out.count('phase ') == 2
  with (tmp_path / 'resources.csv').open() as file:
    rows = [row for row in csv.DictReader(file) if int(row['step']) < 400]
  assert rows and all(
    float(row['resident_mb']) > 50 and int(row['open_files']) > 3 and int(row['threads']) > 1 for row in rows
  )
  assert (tmp_path / 'resources.png').stat().st_size > 1000
