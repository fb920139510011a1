"""The cells of an ablation, and its tables from given results."""

import dataclasses
import json
import pathlib
import threading

from PIL import Image
import pytest

from dgnet_jax.config.loading import find_config_file, load_config, run_config_file, save_config
from dgnet_jax.config.validation import leaves, validate, with_fields
from dgnet_jax.data.layouts import SPLITS
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError
from dgnet_jax.inference.results import settings_of
from dgnet_jax.reports import ablation
from dgnet_jax.training.data_record import describe_training_data, write_record
from tests.data.folders import write_images

SCORES = {'teacher': 0.5, 'primary': 0.6, 'fine_grained': 0.55, 'both': 0.7}
IMAGES = {'cross': {'plain': {'psnr': 20.0, 'colour_error': 9.0}, 'patterned': {'psnr': 18.0, 'pattern_fidelity': 0.5}}}


class FakeRun:
  """Writes results instead of training, and records the cells that were run."""

  def __init__(self, images=IMAGES, subfolder=''):
    self.images, self.subfolder = images, subfolder
    self.ran = []

  def __call__(self, config, cell):
    self.ran.append((cell.kind, cell.seed, config))
    extra = 0.01 * cell.seed + {'joint': 0, 'release': -0.01, 'real': -0.05, 'ground_truth': 0.02}[cell.kind]
    rows = {name: {'rank_1': value + extra, 'mAP': value / 2 + extra} for name, value in SCORES.items()}
    path = cell.workdir / 'evaluation' / self.subfolder / 'results.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    save_config(config, cell.workdir / 'config.json')
    results = {'step': config.num_steps, 'single_query': rows}
    if config.joint and self.images:
      images = {
        kind: {group: {name: value + cell.seed for name, value in row.items()} for group, row in groups.items()}
        for kind, groups in self.images.items()
      }
      results['images'] = images | {'diversity': {'generated': None}}
    path.write_text(json.dumps(results))

  @property
  def cells(self):
    return [(kind, seed) for kind, seed, _ in self.ran]


@pytest.fixture(scope='module')
def base():
  return load_config('synthetic', {})


def with_log(config, **changes):
  return dataclasses.replace(config, log=dataclasses.replace(config.log, **changes))


def test_table_and_chart_are_written(base, tmp_path, lines):
  summary = ablation.run_all(base, tmp_path, [0, 2], run=FakeRun())
  assert summary['scores']['DG-Net, both']['rank_1'] == pytest.approx([0.7, 0.72])
  assert summary['gains']['DG-Net, both']['rank_1'] == pytest.approx([0.05, 0.05])  # over 0.65 and 0.67
  images = summary['images']['joint']
  assert images['cross']['plain'] == {'psnr': [20, 22], 'colour_error': [9, 11]} and images['diversity'] == {}
  table = (tmp_path / 'ablation.md').read_text()
  assert table.startswith('| test images, 2 seeds | rank-1 | mAP | rank-1, gain over real images only |')
  assert '| DG-Net, both | 71.0 ± 1.4 | 36.0 ± 1.4 | +5.0 ± 0.0 | +5.0 ± 0.0 |' in table
  assert '| real images only, primary | 56.0 ± 1.4 | 26.0 ± 1.4 |  |  |' in table and table.strip() in lines[-1]
  assert '| DG-Net, cross images, plain | 21.00 ± 1.41 |  | 10.0 ± 1.4 |  |' in table
  assert '| DG-Net, cross images, patterned | 19.00 ± 1.41 |  |  | 1.500 ± 1.414 |' in table
  assert json.loads((tmp_path / 'ablation.json').read_text()) == summary
  with Image.open(tmp_path / 'ablation.png') as chart:
    assert chart.size[0] > 900


def test_ground_truth_cells_are_optional(base, tmp_path):
  run = FakeRun()
  ablation.run_all(base, tmp_path, [0], run=run)
  assert 'ground-truth' not in (tmp_path / 'ablation.md').read_text()
  summary = ablation.run_all(base, tmp_path, [0], with_ground_truth=True, run=run)
  assert run.cells == [('joint', 0), ('real', 0), ('ground_truth', 0)]
  assert summary['gains']['ground-truth images, both']['rank_1'] == pytest.approx([0.07])  # 0.72 over 0.65
  table = (tmp_path / 'ablation.md').read_text()
  assert (
    table.startswith('| test images, 1 seed |') and '| ground-truth images, both | 72.0 | 37.0 | +7.0 | +7.0 |' in table
  )
  real, ground_truth = (dict(leaves(config.to_dict())) for kind, _, config in run.ran if kind != 'joint')
  assert {name for name in real if real[name] != ground_truth[name]} == {'teaching.images'}


def test_cells_with_the_generator_of_the_release_are_optional(base, tmp_path):
  run = FakeRun()
  release = load_config('synthetic_release', {})
  summary = ablation.run_all(base, tmp_path, [0], release=release, run=run)
  assert run.cells == [('joint', 0), ('release', 0), ('real', 0)]
  joint, of_release, real = (config for *_, config in run.ran)
  assert (joint.generator.design, of_release.generator.design) == ('correspondence', 'adain')
  assert of_release.joint and of_release.teacher.checkpoint == real.teacher.checkpoint
  assert summary['gains']["DG-Net with the release's generator, both"]['rank_1'] == pytest.approx([0.04])
  table = (tmp_path / 'ablation.md').read_text()
  assert "| DG-Net with the release's generator, cross images, plain | 20.00 |" in table


def test_cells_that_are_done_are_not_run_again(base, tmp_path):
  run = FakeRun()
  ablation.run_all(base, tmp_path, [1], run=run)
  ablation.run_all(base, tmp_path, [1, 3], run=run)
  assert run.cells == [('joint', 1), ('real', 1), ('joint', 3), ('real', 3)]


def test_cell_with_results_of_an_earlier_step_is_run_again(base, tmp_path):
  run = FakeRun()
  ablation.run_all(base, tmp_path, [1], run=run)
  path = tmp_path / 'real_1' / 'evaluation' / 'results.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'step': 10}))
  ablation.run_all(base, tmp_path, [1], run=run)
  assert run.cells == [('joint', 1), ('real', 1), ('real', 1)]


def test_cell_with_results_of_another_protocol_is_evaluated_again(base, tmp_path):
  run = FakeRun()
  ablation.run_all(base, tmp_path, [1], run=run)
  path, settings = tmp_path / 'real_1' / 'evaluation' / 'results.json', settings_of(base.evaluation)
  for changed in (settings, settings | {'protocol': 'standard'}):
    path.write_text(json.dumps(json.loads(path.read_text()) | {'settings': changed}))
    ablation.run_all(base, tmp_path, [1], run=run)
  assert run.cells == [('joint', 1), ('real', 1), ('real', 1)]


@pytest.mark.parametrize(
  'content', ['{', '[]', '{"step": 1_000}', '{"step": STEPS}', '{"step": STEPS, "single_query": 3}']
)
def test_damaged_results_are_reported(base, tmp_path, content):
  ablation.run_all(base, tmp_path, [1], run=FakeRun())
  path = tmp_path / 'real_1' / 'evaluation' / 'results.json'
  path.write_text(content.replace('STEPS', str(base.num_steps)))
  with pytest.raises(UserError, match='results.json'):
    ablation.run_all(base, tmp_path, [1], run=FakeRun())


def test_cells_with_other_settings_are_refused(base, tmp_path):
  run = FakeRun()
  base = dataclasses.replace(base, num_steps=3_000)
  ablation.run_all(base, tmp_path, [1], run=run)
  base = with_log(base, images_every_steps=base.log.images_every_steps + 1)  # of no effect on results
  ablation.run_all(base, tmp_path, [1], run=run)
  with pytest.raises(UserError, match=r'joint_1 was run with other settings \(num_steps: 3000 -> 3001\)'):
    ablation.run_all(dataclasses.replace(base, num_steps=3_001), tmp_path, [2, 1], run=run)
  assert len(run.ran) == 2


def test_cells_may_be_evaluated_on_held_out_identities(base, tmp_path):
  base = with_fields(base, {'data.val_identities': 2, 'evaluation.split': 'validation'})
  run = FakeRun(subfolder='validation')
  summary = ablation.run_all(base, tmp_path, [1], run=run)
  assert ablation.run_all(base, tmp_path, [1], run=run) == summary and len(run.ran) == 2
  assert summary['scores']['DG-Net, both']['rank_1'] == [pytest.approx(SCORES['both'] + 0.01)]


def test_missing_wandb_is_an_error_before_the_cells(base, tmp_path, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  run = FakeRun()
  with pytest.raises(UserError, match='log.wandb_project=people: wandb is missing'):
    ablation.run_all(with_log(base, wandb_project='people'), tmp_path, [1], run=run)
  assert not run.ran


def test_data_that_changed_between_cells_are_refused_before_training(base, tmp_path):
  root = write_images(tmp_path / 'data', *(f'{split}/{name}/1.jpg' for split in SPLITS for name in (split, 'Anna')))
  data = dataclasses.replace(base.data, layout='folders', root=str(root))
  joint, real = ablation.cells(tmp_path / 'out', [0])
  write_record(describe_training_data(read_layout(root, 'folders'), data), joint.workdir)
  (root / 'train' / 'Anna').rename(root / 'train' / 'Ben')
  with pytest.raises(UserError, match=r'joint_0 was trained on other data \(1 identities are missing \(Anna\)'):
    ablation.run_cell(dataclasses.replace(base, data=data), real)


def test_a_configured_teacher_is_used_by_all_cells(base, tmp_path):
  base = dataclasses.replace(base, teacher=dataclasses.replace(base.teacher, checkpoint='elsewhere/teacher'))
  configs = [ablation.cell_config(base, cell, tmp_path) for cell in ablation.cells(tmp_path, [0])]
  assert [config.teacher.checkpoint for config in configs] == ['elsewhere/teacher'] * 2


def test_no_image_table_without_image_results(base, tmp_path):
  summary = ablation.run_all(base, tmp_path, [1], run=FakeRun(images={}))
  assert summary['images'] == {'joint': {}} and 'PSNR' not in ablation.markdown(summary)


def test_real_cells_differ_from_joint_ones_in_joint_and_the_teacher_only(base, tmp_path):
  run = FakeRun()
  ablation.run_all(base, tmp_path, [4], run=run)
  joint, real = (dict(leaves(config.to_dict())) for *_, config in run.ran)
  assert {name for name in joint if joint[name] != real[name]} == {'teacher.checkpoint', 'joint'}
  assert real['teacher.checkpoint'] == str(tmp_path / 'joint_4' / 'teacher')
  assert joint['seed'] == real['seed'] == 4 and joint['data.root'] == real['data.root']


def test_repeated_seeds_and_unsuitable_configs_are_refused(base, tmp_path):
  with pytest.raises(UserError, match='seeds 1 1'):
    ablation.run_all(base, tmp_path, [1, 1], run=FakeRun())
  base = dataclasses.replace(base, reid=dataclasses.replace(base.reid, detach_code=False))
  with pytest.raises(UserError, match='detach_code'):
    ablation.run_all(base, tmp_path, [1], run=FakeRun())


@pytest.mark.parametrize('setting', ['small', 'more_cameras', 'large'])
def test_settings_of_the_ablation_config_are_valid(setting):
  base = validate(run_config_file(find_config_file('ablation')).get_config(setting))
  folder = pathlib.Path('ablation')
  joint, real = (ablation.cell_config(base, cell, folder) for cell in ablation.cells(folder, [0]))
  assert joint.joint and not real.joint


def test_second_ablation_in_a_folder_is_refused(base, tmp_path):
  run = FakeRun()

  def with_a_second(config, cell):
    thread = threading.Thread(target=second)  # has a lock of its own, as another process has
    thread.start()
    thread.join()
    run(config, cell)

  def second():
    with pytest.raises(UserError, match='the ablation in .* is in use by another process'):
      ablation.run_all(base, tmp_path, [0], run=run)
    refused.append(True)

  refused = []
  ablation.run_all(base, tmp_path, [0], run=with_a_second)
  assert len(refused) == len(run.cells) == 2
