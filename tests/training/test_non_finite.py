"""Reports on steps that are not finite: written, found and read again, and refused if they are something else."""

import json
import os

import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.errors import UserError
from dgnet_jax.training.non_finite import NonFinite, environment, find_report, read_report, write_report
from tests.tiny_run import frozen, tiny_config

FOUND = NonFinite(step=7, terms=('identity', 'total'), networks=('reid',), noticed_after=10, checkpoint=5)


def test_report_is_read_as_it_was_written(tmp_path):
  config = frozen(tiny_config())
  path = write_report(FOUND, config, tmp_path)
  assert path == tmp_path / 'non_finite' / 'step_7' / 'report.json' == find_report(tmp_path)
  saved = read_report(path)
  assert (saved.found, saved.config, saved.environment) == (FOUND, config, environment())


def test_last_report_is_found_unless_a_step_is_named(tmp_path):
  config = frozen(tiny_config())
  later, earlier = (write_report(NonFinite(step, (), (), step + 1, None), config, tmp_path) for step in (20, 100))
  os.utime(later, (2e9, 2e9))
  assert find_report(tmp_path) == later and find_report(tmp_path, 100) == earlier
  with pytest.raises(UserError, match='no report on step 3; there are 20, 100'):
    find_report(tmp_path, 3)


@pytest.mark.parametrize(
  'changes',
  [
    {'step': -1},
    {'step': 1.5},
    {'step': True},
    {'checkpoint': 8},
    {'terms': 3},
    {'config': {}},
    {'config': {'seed': 'x'}},
  ],
)
def test_file_that_is_not_a_report_is_refused(tmp_path, changes):
  path = write_report(FOUND, frozen(tiny_config()), tmp_path)
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  with pytest.raises(UserError, match='report.json: not a report of training'):
    read_report(path)


def test_replay_of_a_run_without_a_report_is_refused(tmp_path, capsys):
  with pytest.raises(SystemExit, match='2'):
    main(['replay', f'--workdir={tmp_path}'])
  assert 'there is no report; training writes one if a number is not finite' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())
