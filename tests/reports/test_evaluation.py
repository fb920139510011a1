"""Evaluation of a complete run, with tiny networks on the built-in pedestrians."""

import csv
import json

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.api import load
from dgnet_jax.config.loading import save_config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.errors import MissingSplit, NoMatches, UserError
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.reports.evaluation import evaluate
from dgnet_jax.reports.ranking import SplitEmbeddings, ranking_table, ranking_tables, table_rows
from dgnet_jax.training.data_record import describe_training_data, write_record
from dgnet_jax.training.teacher_loop import train_teacher
from tests.data.fakes import write_fake
from tests.data.folders import write_image, write_images
from tests.log_lines import logged
from tests.tiny_run import frozen, save_checkpoint, tiny_config

STEP = 7


def run_config(**changes):
  """The frozen config of the run; `changes` are updates of sections."""
  config = tiny_config()
  config.data.synthetic.seed = 2  # most of the five test identities wear patterns, and one a plain top
  for section, fields in changes.items():
    config[section].update(fields)
  return frozen(config)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """The work folder of a run: data, a teacher and one checkpoint."""
  config, folder = run_config(), tmp_path_factory.mktemp('run')
  index = open_dataset(config.data, folder)
  train_teacher(config, index, folder)
  save_checkpoint(config, folder, index.num_identities, STEP)
  return folder


@pytest.fixture(scope='module')
def index(workdir):
  return open_dataset(run_config().data, workdir)


@pytest.fixture(scope='module')
def evaluation(workdir):
  """The results and the log messages."""
  with logged() as messages:
    return evaluate(run_config(), workdir), messages


def test_results_have_all_tables(workdir, index, evaluation):
  results, _ = evaluation
  assert results['step'] == STEP and results['num_queries'] == results['num_valid_queries'] == len(index.query)
  assert results['num_distractors'] == 2 and results['num_junk'] == 2 and results['overlaps'] == []
  for table in (results['single_query'], results['multi_query']):
    assert list(table) == ['chance', 'teacher', 'primary', 'fine_grained', 'both']
    for row in table.values():
      assert list(row)[:5] == ['rank_1', 'rank_5', 'rank_10', 'rank_20', 'mAP']
      assert 0 <= row['rank_1'] <= row['rank_5'] <= row['rank_10'] <= 1 and 0 < row['mAP'] <= 1
    assert 'mINP' in table['both'] and 'mINP' not in table['chance']
  assert json.loads((workdir / 'evaluation' / 'results.json').read_text()) == results


def test_images_are_measured_against_the_ground_truth(evaluation):
  images, count = evaluation[0]['images'], run_config().evaluation.num_ground_truth_pairs
  kinds = ['cross', 'several', 'structure', 'recolored', 'self', 'same_person']
  assert list(images) == [*kinds, 'diversity', 'teacher_frechet_distance']
  for kind in kinds:
    groups = images[kind]
    counts = [groups[name]['count'] for name in ('plain', 'patterned') if name in groups]
    assert groups['all']['count'] == count == sum(counts)
    for row in groups.values():
      assert 0 < row['psnr'] < 60 and -1 < row['ssim'] < 1 and 0 < row['colour_error'] < 150
    assert -1 <= groups['all']['pattern_fidelity'] < 1 and 0 < groups['all']['pattern_count'] <= count
  assert images['cross'] != images['same_person'] != images['self'] and 'other_camera' not in images['self']
  assert all(-1 < value < 1 for value in images['diversity'].values())
  distance = images['teacher_frechet_distance']
  assert (distance['dimensions'], distance['num_generated'], distance['num_real']) == (8, count, 5 * 4)
  assert min(distance['generated'], distance['ground_truth'], distance['real_halves']) > 0


def test_files_are_written_and_logged(workdir, evaluation):
  results, messages = evaluation
  assert set(results['files']) == {'rankings', 'swaps', 'ranked', 'ground_truth'}
  for name in results['files'].values():
    path = workdir / 'evaluation' / name
    assert str(path) in messages[-1]
    if path.suffix == '.png':
      with Image.open(path) as sheet:
        assert min(sheet.size) > 300
  assert not [path for path in (workdir / 'evaluation').iterdir() if path.name.startswith('.')]


@pytest.mark.parametrize(
  'text',
  [
    *('single query', 'multi-query', 'chance', 'teacher', 'primary', 'fine-grained', 'both, alpha 0.5'),
    *('PSNR', 'ground truth', 'not Inception FID'),
  ],
)
def test_tables_are_logged(evaluation, text):
  assert text in '\n'.join(evaluation[1])


def test_evaluation_is_deterministic(workdir, evaluation):
  assert evaluate(run_config(), workdir) == evaluation[0]


def test_direct_transfer_to_other_data(workdir, evaluation, tmp_path, lines):
  """The other data have another number of training identities, or no training split."""
  save_config(run_config(), workdir / 'config.json')
  before = (workdir / 'evaluation' / 'results.json').read_bytes()
  other = run_config(data={'layout': 'dukemtmc', 'root': str(write_fake(tmp_path / 'duke', 'dukemtmc'))})
  write_image(tmp_path / 'duke' / 'query' / '0099_c2_f0000001.jpg', seed=99)  # of nobody in the gallery
  gallery = sorted((tmp_path / 'duke' / 'bounding_box_test').iterdir())
  gallery[-1].write_bytes(gallery[0].read_bytes())  # of another identity
  results = evaluate(other, workdir)
  (folder,) = (workdir / 'evaluation').glob('on_dukemtmc_duke_*')
  assert json.loads((folder / 'results.json').read_text()) == results
  assert (results['data'], results['num_queries'], results['num_gallery']) == ('dukemtmc', 3, 5)
  assert results['num_valid_queries'] == 2 and '3 queries, 2 of them with a match' in '\n'.join(lines)
  assert any('counted as failures (evaluation.protocol=release)' in line and '0099_c2' in line for line in lines)
  (overlap,) = results['overlaps']
  assert overlap.startswith('1 images have two identities') and any(overlap in line for line in lines)
  assert list(results['single_query']) == ['chance', 'teacher', 'primary', 'fine_grained', 'both']
  assert 'multi_query' not in results and 'images' not in results and f'step {STEP} on dukemtmc' in '\n'.join(lines)
  assert (workdir / 'evaluation' / 'results.json').read_bytes() == before
  (tmp_path / 'duke' / 'bounding_box_train').rename(tmp_path / 'elsewhere')
  assert evaluate(other, workdir) == results
  (tmp_path / 'duke' / 'query').rename(tmp_path / 'query')
  with pytest.raises(MissingSplit, match='no images of query'):
    evaluate(other, workdir)
  (workdir / 'config.json').unlink()


def test_missing_checkpoint_is_reported(workdir, tmp_path):
  (tmp_path / 'synthetic_data').symlink_to(workdir / 'synthetic_data')
  with pytest.raises(UserError, match='no checkpoint of DG-Net; `dgnet train`'):
    evaluate(run_config(), tmp_path)


@pytest.mark.parametrize('protocol', ['release', 'standard'])
def test_queries_without_any_match_are_an_error_before_the_work(tmp_path, protocol):
  root = write_images(tmp_path, *(f'{split}/{name}/c1_{split}.jpg' for split in ('query', 'gallery') for name in 'AB'))
  data = {'layout': 'folders', 'root': str(root), 'camera_pattern': 'c(?P<camera>[0-9])'}
  with pytest.raises(NoMatches, match='none of the 2 queries has a match'):
    evaluate(run_config(data=data, evaluation={'protocol': protocol}), tmp_path / 'no run')


def test_ranking_table_is_in_percent():
  row = {'rank_1': 0.5, 'rank_5': 0.75, 'rank_10': 1.0, 'mAP': 0.1236}
  assert ranking_table('single query', {'both': row}, 0.5).split('\n')[1].split() == [
    *('both,', 'alpha', '0.5', '50.00%', '75.00%', '100.00%', '12.36%')
  ]


def test_optional_tables_and_charts(workdir, evaluation, tmp_path):
  options = {'protocol': 'standard', 'alpha_steps': 3, 'verification': True, 'rerank': True}
  run_in(tmp_path, workdir)
  results = evaluate(run_config(evaluation=options | {'reranking': {'k1': 6, 'k2': 2, 'weight': 0.3}}), tmp_path)
  usual = evaluation[0]
  assert results['protocol'] == 'standard' and usual['protocol'] == 'release'
  assert results['num_valid_queries'] == usual['num_valid_queries']
  both = results['single_query']['both']
  assert both['mAP'] != usual['single_query']['both']['mAP'] and both['mINP'] == usual['single_query']['both']['mINP']
  assert 0 <= both['tpr_at_0.0001'] <= both['tpr_at_0.01'] <= 1
  assert list(results['alphas']) == ['0', '0.5', '1']
  assert results['alphas']['0.5'] == both and results['alphas']['0'] == results['single_query']['primary']
  assert list(results['reranked']) == ['teacher', 'primary', 'fine_grained', 'both']
  with (tmp_path / 'evaluation' / 'rankings.csv').open() as file:
    values = {tuple(line[:3]): line[3] for line in csv.reader(file)}
  assert float(values['reranked', 'both', 'mAP']) == results['reranked']['both']['mAP']
  for name in ('alphas', 'roc'):
    with Image.open(tmp_path / 'evaluation' / results['files'][name]) as chart:
      assert chart.size[0] > 500


def run_in(folder, workdir):
  """A work folder with the data, the teacher and the checkpoints of another."""
  for name in ('synthetic_data', 'teacher', 'checkpoints'):
    (folder / name).symlink_to(workdir / name)
  return folder


def test_ranked_table_agrees_with_results_and_embeddings(workdir, index, tmp_path):
  """The queries of docs/training.md."""
  pytest.importorskip('pyarrow')
  duckdb = pytest.importorskip('duckdb')
  config, embeddings = run_config(evaluation={'ranked_table': 20}), tmp_path / 'embeddings'
  results = evaluate(config, run_in(tmp_path, workdir))
  table = f"'{tmp_path}/evaluation/ranked_table/*.parquet'"
  for rank in (1, 5, 20):
    hits = f'SELECT bool_or(is_match AND rank <= {rank}) AS hit FROM {table} GROUP BY query_path'
    ((accuracy,),) = duckdb.sql(f'SELECT avg(hit::INT) FROM ({hits})').fetchall()
    assert accuracy == pytest.approx(results['single_query']['both'][f'rank_{rank}'])
  wrong = f'SELECT query_path FROM {table} WHERE rank = 1 AND NOT is_match ORDER BY similarity DESC LIMIT 20'
  assert len(duckdb.sql(wrong).fetchall()) == round(len(index.query) * (1 - results['single_query']['both']['rank_1']))
  root = tmp_path / 'synthetic_data'
  load(tmp_path).embed_to(embeddings, [str(root / 'query'), str(root / 'bounding_box_test')])
  joined = f"""
    SELECT similarity, list_inner_product(query.embedding, gallery.embedding)
    FROM {table}
    JOIN '{embeddings}/*.parquet' AS query ON query.path = query_path
    JOIN '{embeddings}/*.parquet' AS gallery ON gallery.path = gallery_path
  """
  similarity, product = np.transpose(duckdb.sql(joined).fetchall())
  assert len(similarity) == duckdb.sql(f'SELECT count(*) FROM {table}').fetchall()[0][0] > 20
  np.testing.assert_allclose(similarity, product, atol=1e-5)
  first = evaluate(run_config(), tmp_path)
  (kept,) = (tmp_path / 'evaluation' / 'earlier').iterdir()
  assert (kept / 'ranked_table' / 'part-00000-of-00001.parquet').exists()
  assert not (tmp_path / 'evaluation' / 'ranked_table').exists()
  assert 'ranked_table' not in first['settings'] and results['settings']['ranked_table'] == 20


def test_run_without_its_teacher_is_evaluated_as_far_as_possible(workdir, evaluation, tmp_path, lines):
  for name in ('synthetic_data', 'checkpoints'):
    (tmp_path / name).symlink_to(workdir / name)
  results = evaluate(run_config(), tmp_path)
  warning = next(i for i, line in enumerate(lines) if line.startswith(f'no teacher in {tmp_path / "teacher"}: its row'))
  assert warning < next(i for i, line in enumerate(lines) if line.startswith('comparing the images'))  # before the work
  usual = evaluation[0]
  for name in ('single_query', 'multi_query'):
    assert results[name] == {row: values for row, values in usual[name].items() if row != 'teacher'}
  images = {name: values for name, values in usual['images'].items() if name != 'teacher_frechet_distance'}
  assert results['images'] == images and results['files'] == usual['files']


def test_teacher_alone_is_evaluated(workdir, evaluation, tmp_path, lines):
  for name in ('synthetic_data', 'teacher'):
    (tmp_path / name).symlink_to(workdir / name)
  results = evaluate(run_config(), tmp_path)
  assert results['networks'] == 'teacher' and results['step'] == 2 and 'images' not in results
  for name in ('single_query', 'multi_query'):
    assert results[name] == {row: evaluation[0][name][row] for row in ('chance', 'teacher')}
  folder = tmp_path / 'evaluation' / 'teacher'
  assert json.loads((folder / 'results.json').read_text()) == results
  assert {path.name for path in folder.iterdir()} >= {'results.json', *results['files'].values()}
  assert any('no checkpoint of DG-Net, so the teacher is evaluated alone' in line for line in lines)
  with pytest.raises(UserError, match='no checkpoint of step 3; there is none'):
    evaluate(run_config(), tmp_path, step=3)


@pytest.mark.parametrize('has_record', [True, False])
def test_a_run_that_held_nobody_out_is_not_validated(workdir, index, tmp_path, has_record):
  (tmp_path / 'synthetic_data').symlink_to(workdir / 'synthetic_data')
  save_config(run_config(), tmp_path / 'config.json')
  if has_record:
    write_record(describe_training_data(index, run_config().data), tmp_path)
  expected = 'trained on 2 of these 2 .*evaluate its test split' if has_record else 'no checkpoint of DG-Net'
  with pytest.raises(UserError, match=expected):
    evaluate(run_config(data={'val_identities': 2}, evaluation={'split': 'validation'}), tmp_path)


def random_embeddings(index, size):
  """Random embeddings of the query and the gallery split."""
  rng = np.random.default_rng(0)
  splits = (index.query, index.gallery)
  query, gallery = (Embeddings(rng.normal(size=(len(s), size)), s.identity, s.camera) for s in splits)
  return SplitEmbeddings(query, gallery, multi_query=None)


def test_reranking_needs_more_images_than_neighbours(index):
  count, embeddings = len(index.query) + len(index.gallery), random_embeddings(index, 4)
  config = run_config(evaluation={'rerank': True, 'reranking': {'k1': count, 'k2': 2, 'weight': 0.3}})
  rows = table_rows(config.reid, config.evaluation, embeddings, embeddings)
  with pytest.raises(UserError, match=f'evaluation.reranking.k1 = {count} must be less than .*, {count}'):
    ranking_tables(config.evaluation, rows)


def test_embedding_without_halves_is_ranked_unweighted(index):
  """Style normal has one head and PCB one for every part; an odd number of features has no halves."""
  config, embeddings = run_config(reid={'style': 'normal'}), random_embeddings(index, 5)
  rows = table_rows(config.reid, config.evaluation, embeddings, embeddings)
  table = ranking_tables(config.evaluation, rows)['single_query']
  assert list(table) == ['chance', 'teacher', 'primary']
  assert table['primary'] == table['teacher']
