"""Ranking while DG-Net trains, with tiny networks: its numbers are those of `dgnet evaluate`."""

import json
import shutil

import jax
import numpy as np
from PIL import Image
import pytest

from dgnet_jax.api import load
from dgnet_jax.config.loading import SAVED_CONFIG, save_config
from dgnet_jax.data.index import DatasetIndex, Split
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.plots.curves import RANKED
from dgnet_jax.reports import validation
from dgnet_jax.reports.evaluation import evaluate
from dgnet_jax.reports.ranking import SplitEmbeddings
from dgnet_jax.reports.validation import make_measure
from dgnet_jax.training.best_step import best_step
from dgnet_jax.training.loop import train
from tests.tiny_run import frozen, tiny_config

NUM_STEPS = 5


def run_config(**fields):
  config = tiny_config()
  config.update(joint=False, num_steps=NUM_STEPS, batch_size=8)
  config.data.update(val_identities=2)
  config.data.synthetic.num_train_identities = 6
  config.log.update(progress_every_steps=10, checkpoint_every_steps=10, keep_checkpoints=1, images_every_steps=10)
  config.evaluation.every_steps = 2
  config.update_from_flattened_dict(fields)
  return frozen(config)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The work folder of a run, and its last state."""
  folder = tmp_path_factory.mktemp('run')
  save_config(run_config(), folder / SAVED_CONFIG)
  return folder, train(run_config(), folder, make_measure=make_measure)


@pytest.fixture(scope='module')
def ranked(run):
  rows = [json.loads(line) for line in (run[0] / 'metrics.jsonl').read_text().splitlines()]
  return {row['step']: row for row in rows if 'validation/mAP' in row}


def test_every_interval_and_the_end_are_ranked(ranked):
  assert list(ranked) == [2, 4, NUM_STEPS]
  assert all(f'validation/{name}' in row for row in ranked.values() for name in RANKED)


def test_held_out_people_are_not_classes(run):
  assert load(run[0]).num_identities == 4


def test_best_checkpoint_gives_the_recorded_numbers(run, ranked):
  folder, (step, value) = run[0], best_step(run[0])
  assert value == max(row['validation/mAP'] for row in ranked.values()) == ranked[step]['validation/mAP']
  assert {int(path.name) for path in (folder / 'checkpoints').iterdir()} == {step, NUM_STEPS}
  results = evaluate(run_config(**{'evaluation.split': 'validation'}), folder, step='best')
  assert results['step'] == step
  for name in RANKED:
    np.testing.assert_allclose(results['single_query']['both'][name], ranked[step][f'validation/{name}'], atol=1e-6)
  subfolder = f'step_{step:07d}' if step != NUM_STEPS else ''
  assert json.loads((folder / 'evaluation' / 'validation' / subfolder / 'results.json').read_text()) == results
  assert load(folder, step='best').step == step and load(folder, step=NUM_STEPS).step == NUM_STEPS


def test_ranking_changes_no_number_of_the_training(run, tmp_path):
  plain = train(run_config(**{'evaluation.every_steps': 0}), tmp_path)
  assert all(jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b), run[1].reid.params, plain.reid.params)))


def test_people_that_were_trained_on_are_not_ranked_as_held_out(run):
  fields = {'data.val_identities': 3, 'evaluation.split': 'validation'}
  with pytest.raises(UserError, match='data.val_identities=3: the run was trained on 1 of these 3.*set it to 2, as in'):
    evaluate(run_config(**fields), run[0])


def test_the_teacher_is_ranked_too(run):
  folder = run[0] / 'teacher'
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  ranked = {row['step']: row for row in rows if 'validation/mAP' in row}
  assert list(ranked) == [2]  # of 2 steps
  results = evaluate(run_config(**{'evaluation.split': 'validation'}), run[0])
  for name in RANKED:
    np.testing.assert_allclose(results['single_query']['teacher'][name], ranked[2][f'validation/{name}'], atol=1e-6)


def test_a_teacher_that_stopped_before_its_last_ranking_is_ranked(run, tmp_path):
  shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'teacher' / 'metrics.jsonl'
  before = path.read_text()
  rows = [json.loads(line) for line in before.splitlines()]
  kept = [{name: value for name, value in row.items() if not name.startswith('validation/')} for row in rows]
  path.write_text(''.join(json.dumps(row) + '\n' for row in kept))
  train(run_config(), tmp_path, make_measure=make_measure)
  ranked = [row for row in map(json.loads, path.read_text().splitlines()) if 'validation/mAP' in row]
  assert [row['validation/mAP'] for row in ranked] == [row['validation/mAP'] for row in rows if 'validation/mAP' in row]
  ranked_once = path.read_text()
  train(run_config(), tmp_path, make_measure=make_measure)
  assert path.read_text() == ranked_once


def test_tracks_are_ranked_in_place_of_images(monkeypatch):
  query = Embeddings(np.float32([[1, 0, 1, 0]]), np.int32([1]), np.int32([1]))
  gallery = Embeddings(  # one image of the track that matches is further away than the other person, the mean is not
    np.float32([[1, 0, 1, 0], [0, 1, 0, 1], [0.6, 0.8, 0.6, 0.8]]), np.int32([1, 1, 2]), np.int32([2, 2, 3])
  )
  splits = SplitEmbeddings(query, gallery, None)
  nothing = Split((), np.int32([]), np.int32([]))
  index = DatasetIndex(
    *('mars', '', nothing),
    Split(('q',), query.identity, query.camera, np.int32([0])),
    Split(('a', 'b', 'c'), gallery.identity, gallery.camera, np.int32([1, 1, 2])),
    nothing,
  )
  monkeypatch.setattr(validation, 'embed_splits', lambda *_: splits)
  monkeypatch.setattr(validation, '_predictor', lambda *_: None)
  fields = {'data.layout': 'mars', 'data.root': 'mars'}
  of_images, of_tracks = (
    make_measure(run_config(**fields, **{'evaluation.tracklets': tracklets}), index)(None, None)
    for tracklets in (False, True)
  )
  assert of_images['mAP'] < 1 == of_tracks['mAP']


def test_a_run_that_goes_on_with_another_measure_warns(run, tmp_path, lines):
  shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
  metrics = (tmp_path / 'metrics.jsonl').read_text()
  train(run_config(), tmp_path, make_measure=make_measure)
  assert not any('former setting' in line for line in lines)
  train(run_config(**{'evaluation.alpha': 1.0}), tmp_path, make_measure=make_measure)
  assert any('evaluation.alpha 0.5 -> 1.0: the mAP of earlier steps' in line for line in lines)
  step, value = best_step(tmp_path)
  assert lines[-1] == f'best step {step}, validation mAP {value:.2%}'
  assert (tmp_path / 'metrics.jsonl').read_text() == metrics  # nothing is ranked twice


def test_steps_that_are_not_there(run):
  with pytest.raises(UserError, match=f'no checkpoint of step 3; there are those of .*{NUM_STEPS}'):
    evaluate(run_config(), run[0], step=3)
  with pytest.raises(UserError, match='no checkpoint of step 3'):
    load(run[0], step=3)
  with pytest.raises(UserError, match='is one checkpoint; name the work folder'):
    load(run[0] / 'checkpoints' / str(NUM_STEPS), step=3)


def test_nothing_to_rank_is_an_error_before_training(tmp_path):
  config = run_config(**{'data.val_identities': 0, 'data.layout': 'folders', 'data.root': str(tmp_path / 'photos')})
  for identity in ('ann', 'ben'):
    (tmp_path / 'photos' / 'train' / identity).mkdir(parents=True)
    for i in range(4):
      Image.new('RGB', (16, 32), (40 * i, 0, 0)).save(tmp_path / 'photos' / 'train' / identity / f'{i}.png')
  with pytest.raises(UserError, match='evaluation.every_steps: .*no images of query.*data.val_identities'):
    train(config, tmp_path / 'run', make_measure=make_measure)
  assert not (tmp_path / 'run' / 'teacher').exists()
