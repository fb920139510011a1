"""The comparison of teachers: its runs, its tables from given scores, and one run from end to end."""

import csv
import dataclasses
import json

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.config.loading import find_config_file, load_config, run_config_file, save_config
from dgnet_jax.config.schema import TeacherConfig
from dgnet_jax.config.validation import leaves, validate, with_fields
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.inference import loading
from dgnet_jax.inference.results import read_results
from dgnet_jax.reports import embedding, teacher_ablation
from dgnet_jax.reports.ranking import SplitEmbeddings
from dgnet_jax.reports.teacher_variants import BASELINE, OPTIONS, RELEASE, VARIANTS, varied_fields
from dgnet_jax.training import teacher_loop
from tests.tiny_run import tiny_config

TITLES = [title for title, _ in VARIANTS]


@pytest.fixture(scope='module')
def base():
  return load_config('synthetic', {})


class FakeRun:
  """Writes results instead of training, and records the runs."""

  def __init__(self):
    self.ran = []

  def __call__(self, run):
    self.ran.append((run.title, run.seed))
    save_config(run.config, run.workdir / 'config.json')
    score = 0.5 + 0.01 * TITLES.index(run.title) + 0.1 * run.seed
    row = {'rank_1': score, 'mAP': score / 2}
    (run.workdir / 'teacher_results.json').write_text(json.dumps({'single_query': {'teacher': row}}))


def test_variants_are_valid_and_differ_from_the_release_as_they_say(base, tmp_path):
  runs = teacher_ablation.teacher_runs(base, tmp_path, [7])
  assert [run.title for run in runs] == TITLES and len({run.workdir for run in runs}) == len(TITLES)
  first, *single, osnet, everything = (dict(leaves(run.config.to_dict())) for run in runs)
  assert all(first[f'teacher.{field}'] == getattr(TeacherConfig(), field) for field in ('last_stride', 'triplet'))
  for (title, fields), values in zip(OPTIONS, single, strict=True):
    assert {name for name in first if first[name] != values[name]} == set(fields), title
    assert all(everything[name] == value for name, value in fields.items())
  assert osnet['teacher.backbone'] == 'osnet' and everything['teacher.backbone'] == 'resnet_ibn_a'
  assert first['seed'] == 7 and {values['data.root'] for values in single} == {str(tmp_path / 'data')}
  assert {name for name in first if first[name] != everything[name]} <= set(varied_fields())


@pytest.mark.parametrize('setting', ['small', 'more_cameras', 'large'])
def test_every_setting_of_the_ablation_allows_the_variants(setting, tmp_path):
  base = validate(run_config_file(find_config_file('ablation')).get_config(setting))
  assert len(teacher_ablation.teacher_runs(base, tmp_path, [0, 1])) == 2 * len(VARIANTS)


def test_the_release_has_the_values_of_the_schema():
  defaults = dict(leaves({'teacher': dataclasses.asdict(TeacherConfig())}))
  assert {name: defaults[name] for name in RELEASE} == RELEASE


def test_table_csv_and_chart_are_written(base, tmp_path, lines):
  summary = teacher_ablation.run_all(base, tmp_path, [0, 2], run_one=FakeRun())
  assert summary['scores'][BASELINE] == {'rank_1': [0.5, 0.7], 'mAP': [0.25, 0.35]}
  assert BASELINE not in summary['gains'] and summary['gains'][TITLES[1]]['mAP'] == pytest.approx([0.005, 0.005])
  table = (tmp_path / 'teacher_ablation.md').read_text()
  assert table.startswith("| teacher, test images, 2 seeds | rank-1 | mAP | rank-1, gain over the release's settings |")
  assert f'| {BASELINE} | 60.0 ± 14.1 | 30.0 ± 7.1 |  |  |' in table and table.strip() in lines[-1]
  assert f'| {TITLES[2]} | 62.0 ± 14.1 | 31.0 ± 7.1 | +2.0 ± 0.0 | +1.0 ± 0.0 |' in table
  assert json.loads((tmp_path / 'teacher_ablation.json').read_text()) == summary
  with (tmp_path / 'teacher_ablation.csv').open(newline='') as file:
    rows = list(csv.reader(file))
  assert rows[0] == ['variant', 'seed', 'rank_1', 'mAP'] and len(rows) == 1 + 2 * len(VARIANTS)
  assert rows[2] == [BASELINE, '2', '0.7', '0.35']
  with Image.open(tmp_path / 'teacher_ablation.png') as chart:
    assert chart.size[0] > 900


def test_only_missing_runs_are_run(base, tmp_path):
  run = FakeRun()
  teacher_ablation.run_all(base, tmp_path, [1], run_one=run)
  (tmp_path / 'teacher_cosine_1' / 'teacher_results.json').unlink()
  teacher_ablation.run_all(base, tmp_path, [1, 3], run_one=run)
  assert run.ran[len(VARIANTS) :] == [('+ cosine', 1), *((title, 3) for title in TITLES)]


def test_runs_with_other_settings_and_damaged_results_are_refused(base, tmp_path):
  run = FakeRun()
  teacher_ablation.run_all(base, tmp_path, [1], run_one=run)
  other = dataclasses.replace(base, teacher=dataclasses.replace(base.teacher, num_epochs=121))
  with pytest.raises(UserError, match=r'was run with other settings \(teacher.num_epochs: 120 -> 121\)'):
    teacher_ablation.run_all(other, tmp_path, [1], run_one=run)
  with pytest.raises(UserError, match='seeds 1 1'):
    teacher_ablation.run_all(base, tmp_path, [1, 1], run_one=run)
  path = tmp_path / 'teacher_cosine_1' / 'teacher_results.json'
  for content in ('{', '{"single_query": 3}', '{"single_query": {"teacher": {"rank_1": "x"}}}'):
    path.write_text(content)
    with pytest.raises(UserError, match='teacher_results.json'):
      teacher_ablation.run_all(base, tmp_path, [1], run_one=run)
  assert len(run.ran) == len(VARIANTS)


@pytest.mark.parametrize('split', ['test', 'validation'])
def test_the_split_to_evaluate_is_ranked(tmp_path, monkeypatch, split):
  ranked = []

  def embed_splits(index, *_):
    ranked.append(index)
    query, gallery = (
      Embeddings(np.ones((len(images), 1)), images.identity, images.camera) for images in (index.query, index.gallery)
    )
    return SplitEmbeddings(query, gallery, None)

  monkeypatch.setattr(teacher_loop, 'train_teacher', lambda *_, **__: None)
  monkeypatch.setattr(loading, 'load_teacher_predictor', lambda *_: None)
  monkeypatch.setattr(embedding, 'embed_splits', embed_splits)
  config = tiny_config()
  config.data.val_identities = 2
  config.evaluation.split = split
  (run, *_) = teacher_ablation.teacher_runs(validate(config), tmp_path, [0])
  teacher_ablation.train_and_evaluate(run)
  ((index,), held_out) = ranked, 2 if split == 'validation' else 5
  assert len(set(index.query.identity.tolist())) == held_out and index.num_identities == 2
  assert read_results(run.workdir / 'teacher_results.json')['settings'].get('split', 'test') == split


def test_a_new_variant_leaves_finished_runs_as_they_are(base, tmp_path, monkeypatch):
  run = FakeRun()
  monkeypatch.setattr(teacher_ablation, 'VARIANTS', [pair for pair in VARIANTS if pair[0] != '+ identity batches'])
  teacher_ablation.run_all(base, tmp_path, [1], run_one=run)
  monkeypatch.undo()
  teacher_ablation.run_all(base, tmp_path, [1], run_one=run)
  assert run.ran[len(VARIANTS) - 1 :] == [('+ identity batches', 1)]


def test_missing_wandb_is_an_error_before_the_runs(base, tmp_path, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  run = FakeRun()
  with pytest.raises(UserError, match='log.wandb_project=people: wandb is missing'):
    teacher_ablation.run_all(with_fields(base, {'log.wandb_project': 'people'}), tmp_path, [1], run_one=run)
  assert not run.ran


@pytest.mark.long
def test_teachers_are_trained_and_evaluated_and_interrupted_runs_resume(tmp_path, monkeypatch):
  config = tiny_config()
  config.teacher.update(num_epochs=2)
  config.data.synthetic.update(num_train_identities=4, images_per_identity=4)
  base = validate(config)
  variants = ((BASELINE, RELEASE), ('strong', {'teacher.images_per_identity': 4, 'teacher.triplet': 1.0}))
  monkeypatch.setattr(teacher_ablation, 'VARIANTS', variants)
  summary = teacher_ablation.run_all(base, tmp_path / 'unbroken', [0])
  assert all(0 < score <= 1 for row in summary['scores'].values() for score in row['mAP'])

  make_step = teacher_loop.make_teacher_step

  def stopping(*args):
    step_fn = make_step(*args)

    def step(*step_args):
      monkeypatch.setattr(teacher_loop, 'make_teacher_step', make_step)
      step_fn(*step_args)
      raise Interrupted('stopped')

    return step

  monkeypatch.setattr(teacher_loop, 'make_teacher_step', stopping)
  with pytest.raises(Interrupted):
    teacher_ablation.run_all(base, tmp_path / 'broken', [0])
  assert teacher_ablation.run_all(base, tmp_path / 'broken', [0]) == summary
  monkeypatch.setattr(teacher_loop, 'train_teacher', None)  # all are done
  assert teacher_ablation.run_all(base, tmp_path / 'broken', [0]) == summary


def test_fields_may_be_set_for_all_runs(base, tmp_path):
  runs = teacher_ablation.teacher_runs(with_fields(base, {'teacher.num_epochs': 90}), tmp_path, [0])
  assert {run.config.teacher.num_epochs for run in runs} == {90}
