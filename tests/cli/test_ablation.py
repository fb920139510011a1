"""`dgnet ablation` through its command line; tests/reports/test_ablation.py has the cells and tables."""

import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.reports import ablation, teacher_ablation
from dgnet_jax.reports.teacher_variants import VARIANTS
from tests.reports import test_teacher_ablation
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


@pytest.fixture
def fake_teacher(monkeypatch):
  run, run_all = test_teacher_ablation.FakeRun(), teacher_ablation.run_all
  monkeypatch.setattr(run_all, '__kwdefaults__', run_all.__kwdefaults__ | {'run_one': run})
  return run


def test_teachers_are_compared(fake_teacher, fake_run, tmp_path, capsys):
  main(['ablation', f'--out={tmp_path}', '--teacher', '--seeds', '5', '--config.teacher.learning_rate=0.1'])
  assert f"teacher 1/{len(VARIANTS)}: release's settings, seed 5" in capsys.readouterr().err
  assert len(fake_teacher.ran) == len(VARIANTS) and not fake_run.ran


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config.teacher.triplet=1'], 'teacher.triplet: the cells differ in it, so it cannot be set'),
    (['--config.seed=1'], 'seed: the cells differ in it'),
    (['--config.teacher.checkpoint=a'], 'teacher.checkpoint: the teachers are trained here'),
    (['--bound'], '--bound: not with --teacher'),
    (['--release'], '--release: not with --teacher'),
  ],
)
def test_what_teachers_do_not_share_is_refused(fake_teacher, tmp_path, capsys, arguments, message):
  with pytest.raises(SystemExit):
    main(['ablation', f'--out={tmp_path}', '--teacher', *arguments])
  assert message in capsys.readouterr().err and not fake_teacher.ran
