"""`dgnet ablation` through its command line; tests/reports/test_ablation.py has the cells and tables."""

import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.reports import ablation
from tests.reports.test_ablation import FakeRun


@pytest.fixture
def fake_run(monkeypatch):
  run = FakeRun()
  monkeypatch.setattr(ablation.run_all, '__kwdefaults__', ablation.run_all.__kwdefaults__ | {'run': run})
  return run


def test_missing_cells_are_run(fake_run, tmp_path, capsys):
  main(['ablation', f'--out={tmp_path}', '--seeds', '5', '--config.num_steps=7'])
  assert 'cell 2/2: real, seed 5' in capsys.readouterr().err
  assert fake_run.cells == [('joint', 5), ('real', 5)] and fake_run.ran[0][2].num_steps == 7
  main(['ablation', f'--out={tmp_path}', '--seeds', '5', '--config.num_steps=7', '--bound'])
  assert fake_run.cells[2:] == [('ground_truth', 5)]


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('num_step=7', 'num_steps'),
    ('joint=False', 'joint: the cells differ in it, so it cannot be set'),
    ('teaching.images=ground_truth', 'teaching.images: the cells differ in it, so it cannot be set'),
  ],
)
def test_invalid_overrides_are_reported(fake_run, tmp_path, capsys, override, message):
  with pytest.raises(SystemExit):
    main(['ablation', f'--out={tmp_path}', f'--config.{override}'])
  assert message in capsys.readouterr().err and not fake_run.ran
