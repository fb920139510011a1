"""The table of the ablation from given results, and which cells are run with what."""

import json
import pathlib

from PIL import Image
import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.config.loading import find_config_file, read_config_file, run_config_file, save_config
from dgnet_jax.config.validation import leaves
from dgnet_jax.errors import UserError
from dgnet_jax.reports import ablation
from tests.conftest import REPO

SCORES = {'teacher': 0.5, 'primary': 0.6, 'fine_grained': 0.55, 'both': 0.7}
IMAGES = {'cross': {'plain': {'psnr': 20.0, 'colour_error': 9.0}, 'patterned': {'psnr': 18.0, 'pattern_fidelity': 0.5}}}


class Runner:
  """Stands for the training: writes results, and remembers what it was asked."""

  def __init__(self):
    self.ran = []

  def __call__(self, config, cell, log):
    self.ran.append((cell.kind, cell.seed, config))
    extra = 0.01 * cell.seed + {'joint': 0, 'real': -0.05, 'truth': 0.02}[cell.kind]
    rows = {name: {'rank_1': value + extra, 'mAP': value / 2 + extra} for name, value in SCORES.items()}
    path = cell.workdir / 'evaluation' / 'results.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    save_config(config, cell.workdir / 'config.json')
    results = {'step': config.num_steps, 'single_query': rows}
    if cell.kind == 'joint':
      images = {
        group: {name: value + cell.seed for name, value in row.items()} for group, row in IMAGES['cross'].items()
      }
      results['images'] = {'cross': images, 'diversity': {'generated': None}}
    path.write_text(json.dumps(results))


@pytest.fixture
def base():
  return read_config_file(REPO / 'configs' / 'synthetic.py')


def test_table_and_plot(base, tmp_path, lines):
  lines.clear()
  summary = ablation.run_all(base, tmp_path, [0, 2], run=Runner())
  assert summary['scores']['DG-Net, both']['rank_1'] == pytest.approx([0.7, 0.72])
  assert summary['gains']['DG-Net, both']['rank_1'] == pytest.approx([0.05, 0.05])  # over 0.65 and 0.67
  assert summary['images']['cross']['plain'] == {'psnr': [20, 22], 'colour_error': [9, 11]}
  assert summary['images']['diversity'] == {}
  table = (tmp_path / 'ablation.md').read_text()
  assert '| DG-Net, both | 71.0 ± 1.4 | 36.0 ± 1.4 | +5.0 ± 0.0 | +5.0 ± 0.0 |' in table
  assert '| real images only, primary | 56.0 ± 1.4 | 26.0 ± 1.4 |  |  |' in table and table.strip() in lines[-1]
  assert '| cross images, plain | 21.00 ± 1.41 |  | 10.0 ± 1.4 |  |' in table
  assert '| cross images, patterned | 19.00 ± 1.41 |  |  | 1.500 ± 1.414 |' in table
  assert json.loads((tmp_path / 'ablation.json').read_text()) == summary
  with Image.open(tmp_path / 'ablation.png') as plot:
    assert plot.size[0] > 900


def test_the_bound_is_on_request(base, tmp_path):
  runner = Runner()
  ablation.run_all(base, tmp_path, [0], run=runner)
  assert 'perfect' not in (tmp_path / 'ablation.md').read_text()
  summary = ablation.run_all(base, tmp_path, [0], bound=True, run=runner)
  assert [kind for kind, *_ in runner.ran] == ['joint', 'real', 'truth']
  assert summary['gains']['perfect images, both']['rank_1'] == pytest.approx([0.07])  # 0.72 over 0.65
  table = (tmp_path / 'ablation.md').read_text()
  assert table.startswith('| 1 seed |') and '| perfect images, both | 72.0 | 37.0 | +7.0 | +7.0 |' in table
  real, truth = (dict(leaves(config)) for kind, _, config in runner.ran if kind != 'joint')
  assert {name for name in real if real[name] != truth[name]} == {'teaching.images'}


def test_cells_that_are_done_are_not_run_again(base, tmp_path):
  runner = Runner()
  ablation.run_all(base, tmp_path, [1], run=runner)
  ablation.run_all(base, tmp_path, [1, 3], run=runner)
  assert [(kind, seed) for kind, seed, _ in runner.ran] == [('joint', 1), ('real', 1), ('joint', 3), ('real', 3)]


def test_results_of_an_earlier_step_are_not_those_of_a_cell(base, tmp_path):
  runner = Runner()
  ablation.run_all(base, tmp_path, [1], run=runner)
  path = tmp_path / 'real_1' / 'evaluation' / 'results.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'step': 10}))
  ablation.run_all(base, tmp_path, [1], run=runner)
  assert [kind for kind, *_ in runner.ran] == ['joint', 'real', 'real']


def test_cells_of_other_settings_are_not_mixed_in(base, tmp_path):
  runner = Runner()
  base.num_steps = 3_000
  ablation.run_all(base, tmp_path, [1], run=runner)
  base.log.images_every_steps += 1
  ablation.run_all(base, tmp_path, [1], run=runner)
  base.num_steps += 1
  with pytest.raises(UserError, match=r'joint_1 was made with other settings \(num_steps: 3000 -> 3001\)'):
    ablation.run_all(base, tmp_path, [2, 1], run=runner)
  assert len(runner.ran) == 2


def test_a_given_teacher_is_that_of_all_cells(base, tmp_path):
  base.teacher.checkpoint = 'elsewhere/teacher'
  configs = [ablation.cell_config(base, cell, tmp_path) for cell in ablation.cells(tmp_path, [0])]
  assert [config.teacher.checkpoint for config in configs] == ['elsewhere/teacher'] * 2


def test_other_data_than_pedestrians_have_no_image_table(base, tmp_path, monkeypatch):
  monkeypatch.setitem(IMAGES, 'cross', {})
  summary = ablation.run_all(base, tmp_path, [1], run=Runner())
  assert 'PSNR' not in ablation.markdown(summary)


def test_kinds_differ_in_the_generated_images_alone(base, tmp_path):
  runner = Runner()
  ablation.run_all(base, tmp_path, [4], run=runner)
  joint, real = (dict(leaves(config)) for *_, config in runner.ran)
  differing = {name for name in joint if joint[name] != real[name]}
  assert differing == {'teacher.checkpoint', 'joint'}
  assert real['teacher.checkpoint'] == str(tmp_path / 'joint_4' / 'teacher')
  assert joint['seed'] == real['seed'] == 4 and joint['data.root'] == real['data.root']


def test_mistakes_are_told(base, tmp_path):
  with pytest.raises(UserError, match='seeds 1 1'):
    ablation.run_all(base, tmp_path, [1, 1], run=Runner())
  base.reid.detach_code = False
  with pytest.raises(UserError, match='detach_code'):
    ablation.run_all(base, tmp_path, [1], run=Runner())


def test_command(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(ablation.run_all, '__kwdefaults__', ablation.run_all.__kwdefaults__ | {'run': Runner()})
  main(['ablation', f'--out={tmp_path}', '--seeds', '5', '--config.num_steps=7'])
  assert 'cell 2/2: real, seed 5' in capsys.readouterr().err
  mistakes = {
    'num_step=7': 'num_steps',
    'joint=False': 'joint: cannot be set, the cells differ in it',
    'teaching.images=ground_truth': 'teaching.images: cannot be set, the cells differ in it',
  }
  for mistake, told in mistakes.items():
    with pytest.raises(SystemExit):
      main(['ablation', f'--out={tmp_path}', f'--config.{mistake}'])
    assert told in capsys.readouterr().err


@pytest.mark.parametrize('setting', ['small', 'more_cameras', 'large'])
def test_settings_are_valid(setting):
  config = run_config_file(find_config_file('ablation')).get_config(setting)
  folder = pathlib.Path('ablation')
  assert ablation.cell_config(config, ablation.cells(folder, [0])[1], folder).joint is False
