"""`dgnet convert`."""

import pytest

from dgnet_jax.cli.main import main
from tests.interop.release.comparison import assert_same_files
from tests.interop.synthetic_release import STEP, TINY_OVERRIDES, random_state_dict, tiny_shapes, write_release


def test_import_and_export_return_the_same_files(tmp_path, capsys):
  state_dicts = {network: random_state_dict(shapes, 0) for network, shapes in tiny_shapes().items()}
  release, workdir = write_release(tmp_path / 'release', state_dicts, STEP), tmp_path / 'work'
  fields = [f'--config.{name}={value}' for name, value in TINY_OVERRIDES.items()]
  main(['convert', 'import', str(release), '--teacher', str(release / 'teacher'), f'--workdir={workdir}', *fields])
  assert f'dgnet evaluate --workdir={workdir}' in capsys.readouterr().out
  main(['convert', 'export', str(workdir), f'--out={tmp_path / "out"}'])
  assert assert_same_files(tmp_path / 'out', release)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['import', 'absent', '--workdir=x'], 'absent: no such folder'),
    (['import', '.', '--workdir=x', '--config.seed'], 'seed: a value is missing'),
    (['export', 'x', '--out=y', '--config.seed=1'], 'seed: only for import'),
  ],
)
def test_mistakes_are_reported(arguments, message, capsys):
  with pytest.raises(SystemExit) as stopped:
    main(['convert', *arguments])
  assert stopped.value.code == 2 and message in capsys.readouterr().err
