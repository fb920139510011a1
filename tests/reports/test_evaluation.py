"""Evaluation and generation of a whole run, with tiny networks on the built-in pedestrians."""

import csv
import json

import jax
import numpy as np
from PIL import Image
import pytest

from dgnet_jax.config.loading import save_config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.index import Split
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.errors import MissingSplit, UserError
from dgnet_jax.generation.sheets import generate
from dgnet_jax.inference.trained import load_trained, one_image_each
from dgnet_jax.reports.evaluation import evaluate
from dgnet_jax.reports.ranking import Embeddings, ranking_table, ranking_tables
from dgnet_jax.training.teacher_loop import train_teacher
from tests.data.fakes import write_fake
from tests.tiny_run import save_checkpoint, tiny_config

STEP = 7


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The config and the folder of a run: data, a teacher and one checkpoint."""
  config, workdir = tiny_config(), tmp_path_factory.mktemp('run')
  config.data.synthetic.seed = 2  # of the five test people most wear patterns, and one a plain top
  index = open_dataset(config, workdir)
  train_teacher(config, index, workdir)
  state = save_checkpoint(config, workdir, index.num_identities, STEP)
  return config, workdir, index, state


@pytest.fixture(scope='module')
def evaluation(run):
  """The results, and the lines that a person saw."""
  config, workdir, *_ = run
  lines = []
  return evaluate(config, workdir), lines


def test_parameters_are_those_of_the_checkpoint(run):
  config, workdir, index, state = run
  trained = load_trained(config, workdir)
  assert trained.step == STEP
  jax.tree.map(np.testing.assert_array_equal, trained.generator, dict(state.generator.params))
  jax.tree.map(np.testing.assert_array_equal, trained.reid, dict(state.reid.params))
  jax.tree.map(np.testing.assert_array_equal, trained.reid_stats, dict(state.reid.batch_stats))


def test_results(run, evaluation):
  _, workdir, index, _ = run
  results, _ = evaluation
  assert results['step'] == STEP and results['num_queries'] == len(index.query)
  assert results['num_distractors'] == 2 and results['num_junk'] == 2
  for table in (results['single_query'], results['multi_query']):
    assert list(table) == ['chance', 'teacher', 'primary', 'fine_grained', 'both']
    for row in table.values():
      assert list(row)[:5] == ['rank_1', 'rank_5', 'rank_10', 'rank_20', 'mAP']
      assert 0 <= row['rank_1'] <= row['rank_5'] <= row['rank_10'] <= 1 and 0 < row['mAP'] <= 1
    assert 'mINP' in table['both'] and 'mINP' not in table['chance']
  assert json.loads((workdir / 'evaluation' / 'results.json').read_text()) == results


def test_images_against_the_truth(run, evaluation):
  config, *_ = run
  images, count = evaluation[0]['images'], config.evaluation.num_ground_truth_pairs
  kinds = ['cross', 'structure', 'recolored', 'self', 'same_person']
  assert list(images) == [*kinds, 'diversity', 'teacher_frechet_distance']
  for kind in kinds:
    groups = images[kind]
    by_kind = [groups[name]['count'] for name in ('plain', 'patterned') if name in groups]
    assert groups['all']['count'] == count == sum(by_kind)
    for row in groups.values():
      assert 0 < row['psnr'] < 60 and -1 < row['ssim'] < 1 and 0 < row['colour_error'] < 150
    assert -1 <= groups['all']['pattern_fidelity'] < 1 and 0 < groups['all']['pattern_count'] <= count
  assert images['cross'] != images['same_person'] != images['self'] and 'other_camera' not in images['self']
  assert all(-1 < value < 1 for value in images['diversity'].values())
  distance = images['teacher_frechet_distance']
  assert (distance['dimensions'], distance['num_generated'], distance['num_real']) == (8, count, 5 * 4)
  assert min(distance['generated'], distance['truth'], distance['real_halves']) > 0


def test_sheets_can_be_seen(run, evaluation):
  _, workdir, *_ = run
  results, lines = evaluation
  assert set(results['files']) == {'rankings', 'swaps', 'ranked', 'truth'}
  for name in results['files'].values():
    path = workdir / 'evaluation' / name
    assert str(path) in lines[-1]
    if path.suffix == '.png':
      with Image.open(path) as sheet:
        assert min(sheet.size) > 300
  assert not [path for path in (workdir / 'evaluation').iterdir() if path.name.startswith('.')]


def test_tables_are_printed(evaluation):
  _, lines = evaluation
  text = '\n'.join(lines)
  for word in (
    'single query',
    'multi-query',
    'chance',
    'teacher',
    'primary',
    'fine-grained',
    'both, alpha 0.5',
    'PSNR',
    'not Inception FID',
  ):
    assert word in text


def test_evaluation_is_repeatable(run, evaluation):
  config, workdir, *_ = run
  assert evaluate(config, workdir) == evaluation[0]


def test_generate(run):
  config, workdir, index, _ = run
  folder = generate(config, workdir)
  assert folder == workdir / 'generated' / f'step_{STEP:07d}'
  with (folder / 'manifest.csv').open() as file:
    rows = list(csv.DictReader(file))
  people = np.unique(index.query.identity)
  assert len(rows) == len(people) * config.evaluation.num_swaps
  assert {row['file'] for row in rows} == {f'images/{p.name}' for p in (folder / 'images').iterdir()}
  assert {int(row['appearance_identity']) for row in rows} == set(people.tolist())
  for row in rows:
    appearance, structure = row['appearance_identity'], row['structure_identity']
    assert row['file'] == f'images/{int(appearance):04d}_in_{int(structure):04d}.png'
    assert row['appearance_from'].startswith(f'query/{int(appearance):04d}_')
    assert row['structure_from'].startswith(f'query/{int(structure):04d}_')
    with Image.open(folder / row['file']) as image:
      assert image.size == (16, 32)
  assert len(list(folder.glob('sheet_*.png'))) == 2  # five people, three on a sheet


def test_generated_images_are_those_of_their_sources(run):
  config, workdir, index, _ = run
  trained = load_trained(config, workdir)
  with (generate(config, workdir) / 'manifest.csv').open() as file:
    row = list(csv.DictReader(file))[-1]
  root = workdir / 'synthetic_data'
  structure, appearance = (ImageFiles([root / row[key]], (32, 16))[:] for key in ('structure_from', 'appearance_from'))
  expected = next(trained.swap_images(structure, appearance))[0]
  with Image.open(workdir / 'generated' / f'step_{STEP:07d}' / row['file']) as image:
    np.testing.assert_allclose(np.asarray(image).astype(int), expected, atol=1)


def test_direct_transfer(run, evaluation, tmp_path, lines):
  """Other data, with another number of people in their training part, or none."""
  config, workdir, *_ = run
  save_config(config, workdir / 'config.json')
  before = (workdir / 'evaluation' / 'results.json').read_bytes()
  other = config.copy_and_resolve_references()
  other.data.update(layout='dukemtmc', root=str(write_fake(tmp_path / 'duke', 'dukemtmc')))
  lines.clear()
  results = evaluate(other, workdir)
  folder = workdir / 'evaluation' / 'on_dukemtmc_duke'
  assert json.loads((folder / 'results.json').read_text()) == results
  assert (results['data'], results['num_queries'], results['num_gallery']) == ('dukemtmc', 2, 5)
  assert list(results['single_query']) == ['chance', 'teacher', 'primary', 'fine_grained', 'both']
  assert 'multi_query' not in results and 'images' not in results and f'step {STEP} on dukemtmc' in '\n'.join(lines)
  assert (workdir / 'evaluation' / 'results.json').read_bytes() == before
  assert generate(other, workdir).parent == workdir / 'generated' / 'on_dukemtmc_duke'
  (tmp_path / 'duke' / 'bounding_box_train').rename(tmp_path / 'elsewhere')
  assert evaluate(other, workdir) == results
  (tmp_path / 'duke' / 'query').rename(tmp_path / 'query')
  with pytest.raises(MissingSplit, match='no images of query'):
    evaluate(other, workdir)
  (workdir / 'config.json').unlink()


def test_without_a_checkpoint_says_what_to_do(run, tmp_path):
  config, workdir, *_ = run
  (tmp_path / 'synthetic_data').symlink_to(workdir / 'synthetic_data')
  for job in (evaluate, generate):
    with pytest.raises(UserError, match='no checkpoint of DG-Net; --mode=train'):
      job(config, tmp_path)


def test_one_image_each_is_of_people_only():
  split = Split(tuple('abcdefgh'), np.array([5, -1, 0, 2, 5, 9, 2, 7]), np.ones(8, int))
  assert one_image_each(split).tolist() == [3, 0, 7, 5]
  assert one_image_each(split, 2).tolist() == [3, 5]
  assert one_image_each(split, 9).tolist() == [3, 0, 7, 5]


def test_table_texts():
  row = {'rank_1': 0.5, 'rank_5': 0.75, 'rank_10': 1.0, 'mAP': 0.1236}
  assert ranking_table('single query', {'both': row}, 0.5).split('\n')[1].split() == [
    *('both,', 'alpha', '0.5', '50.00%', '75.00%', '100.00%', '12.36%')
  ]


def test_everything_that_can_be_asked_for(run, evaluation, tmp_path):
  config, workdir, *_ = run
  asked = config.copy_and_resolve_references()
  asked.evaluation.update(protocol='standard', alpha_steps=3, verification=True, rerank=True)
  asked.evaluation.reranking.update(k1=6, k2=2)
  for name in ('synthetic_data', 'teacher', 'checkpoints'):
    (tmp_path / name).symlink_to(workdir / name)
  results = evaluate(asked, tmp_path)
  usual = evaluation[0]
  assert results['protocol'] == 'standard' and usual['protocol'] == 'release'
  both = results['single_query']['both']
  assert both['mAP'] != usual['single_query']['both']['mAP'] and both['mINP'] == usual['single_query']['both']['mINP']
  assert 0 <= both['tpr_at_0.0001'] <= both['tpr_at_0.01'] <= 1
  assert list(results['alphas']) == ['0', '0.5', '1']
  assert results['alphas']['0.5'] == both and results['alphas']['0'] == results['single_query']['primary']
  assert list(results['reranked']) == ['teacher', 'primary', 'fine_grained', 'both']
  with (tmp_path / 'evaluation' / 'rankings.csv').open() as file:
    cells = {tuple(line[:3]): line[3] for line in csv.reader(file)}
  assert float(cells['reranked', 'both', 'mAP']) == results['reranked']['both']['mAP']
  for name in ('alphas', 'roc'):
    with Image.open(tmp_path / 'evaluation' / results['files'][name]) as plot:
      assert plot.size[0] > 500
  asked.evaluation.reranking.k1 = 100
  with pytest.raises(UserError, match='evaluation.reranking.k1: 100 neighbours of'):
    evaluate(asked, tmp_path)


def test_an_embedding_without_halves_is_searched_whole(run):
  """Style normal has one head and PCB one for every part; an odd length has no halves."""
  config, _, index, _ = run
  rng = np.random.default_rng(0)
  made = {name: rng.normal(size=(len(index.splits[name].paths), 5)) for name in ('query', 'gallery')}
  embeddings = Embeddings(**made, multi_query=None)
  single = config.copy_and_resolve_references()
  single.reid.style = 'normal'
  rows = ranking_tables(single, index, embeddings, embeddings, print)['single_query']
  assert list(rows) == ['chance', 'teacher', 'primary']
  assert rows['primary'] == rows['teacher']
