"""Tracks are ranked by the protocol of MARS."""

import dataclasses

import numpy as np
import pytest

from dgnet_jax.config.loading import save_config
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import problems
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.index import LabeledImage, make_index
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.ranking import rank
from dgnet_jax.reports.evaluation import evaluate
from dgnet_jax.reports.ranking import SplitEmbeddings
from dgnet_jax.reports.tracklets import tracklet_embeddings
from tests.data.fakes import write_fake
from tests.tiny_run import frozen, save_checkpoint, tiny_config

DIMENSIONS = 6


def tracks(seed=0):
  """Tracks of one to three images of five people by three cameras: their index, and random embeddings."""
  rng = np.random.default_rng(seed)
  images = {'query': [], 'gallery': []}
  for number in range(30):
    identity, camera = (str(rng.integers(1, 6)), str(rng.integers(1, 4)))
    split = 'query' if number < 8 else 'gallery'
    identity = {28: 'junk', 29: 'distractor'}.get(number, identity)
    for frame in range(rng.integers(1, 4)):
      images[split].append(LabeledImage(f'{number:02d}_{frame}.jpg', identity, camera, f'track {number}'))
  index = make_index('mars', 'root', images)

  def embedded(split):
    halves = rng.standard_normal((len(split), 2, DIMENSIONS // 2))
    halves /= np.linalg.norm(halves, axis=2, keepdims=True)
    return Embeddings(halves.reshape(len(split), -1).astype(np.float32), split.identity, split.camera)

  return index, SplitEmbeddings(embedded(index.query), embedded(index.gallery), None)


def pooled_by_definition(images, split):
  """(embedding, identity, camera) of every track, by its name's number."""
  result = {}
  for number in sorted({path.split('_')[0] for path in split.paths}):
    rows = [i for i, path in enumerate(split.paths) if path.startswith(f'{number}_')]
    mean = images.features[rows].mean(axis=0).reshape(2, -1)
    embedding = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).ravel()
    result[number] = embedding, split.identity[rows[0]], split.camera[rows[0]]
  return result


def average_precision(order, is_match):
  hits = np.flatnonzero(is_match[order])
  return np.mean([(i + 1) / (place + 1) for i, place in enumerate(hits)])


@pytest.mark.parametrize('seed', range(3))
def test_scores_equal_a_loop_over_tracks(seed):
  """Rank-k and mAP as the authors of MARS compute them, with rectangular precision."""
  index, embeddings = tracks(seed)
  query = pooled_by_definition(embeddings.query, index.query)
  gallery = query | pooled_by_definition(embeddings.gallery, index.gallery)
  precisions, firsts = [], []
  for embedding, identity, camera in query.values():
    kept = [row for row in gallery.values() if row[1] != -1 and not (row[1] == identity and row[2] == camera)]
    scores = np.array([embedding[:3] @ row[0][:3] + 0.5 * embedding[3:] @ row[0][3:] for row in kept])
    is_match = np.array([row[1] == identity for row in kept])
    order = np.argsort(-scores)
    if is_match.any():
      precisions.append(average_precision(order, is_match))
      firsts.append(np.flatnonzero(is_match[order])[0])
  pooled = tracklet_embeddings(embeddings, index, 2)
  result = rank(pooled.query, pooled.gallery, alpha=0.5, protocol='standard')
  assert result.mean_average_precision == pytest.approx(np.mean(precisions))
  for k in (1, 5, 10, 20):
    assert result.at(k) == pytest.approx(np.mean(np.array(firsts) < k))


def test_evaluation_ranks_tracks(tmp_path):
  root = write_fake(tmp_path / 'mars', 'mars', {'train': (6, 3), 'query': (4, 2), 'gallery': (12, 2)})
  for path in sorted((root / 'bbox_test').rglob('*F001.jpg'))[::2]:
    path.with_name(path.name.replace('F001', 'F002')).write_bytes(path.read_bytes())  # half of the tracks have two
  config = tiny_config()
  config.data.update(layout='mars', root=str(root))
  config.joint, config.teaching.images, config.evaluation.tracklets = True, 'generated', True
  config, workdir = frozen(config), tmp_path / 'run'
  index = open_dataset(config.data, workdir)
  save_checkpoint(config, workdir, index.num_identities, 1)
  save_config(config, workdir / 'config.json')
  results = evaluate(config, workdir)
  assert (results['num_query_tracks'], results['num_gallery_tracks']) == (4, 16)
  assert results['num_queries'] == len(index.query) and results['num_gallery'] == len(index.gallery)
  assert {'rank_1', 'rank_5', 'rank_10', 'rank_20', 'mAP'} <= results['single_query']['both'].keys()
  assert results['settings']['tracklets'] is True
  images = evaluate(
    dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, tracklets=False)), workdir
  )
  assert 'num_query_tracks' not in images and 'tracklets' not in images['settings']


def test_other_layouts_have_no_tracks():
  config = Config().to_dict()
  config['evaluation']['tracklets'], config['data']['root'] = True, 'x'
  assert any('has no tracks; only mars has' in problem for problem in problems(config))
