"""k-reciprocal re-ranking against a direct implementation of the definition."""

import numpy as np
import pytest

from dgnet_jax.evaluation import match_ranks, ranking, reranking
from dgnet_jax.evaluation.embeddings import Embeddings


def clustered(count, size=6, noise=0.6, seed=0):
  """Embeddings of norm 1 around one direction for each identity."""
  draw = np.random.default_rng(seed)
  identity = np.arange(count) % 5 + 1
  directions = np.random.default_rng(7).standard_normal((6, size))
  features = directions[identity] + noise * draw.standard_normal((count, size))
  features = np.float32(features / np.linalg.norm(features, axis=1, keepdims=True))
  return Embeddings(features, identity, np.arange(count) % 3)


def by_definition(query, gallery, k1, k2, weight):
  """Scores [Q, G] in float64, with sets and full matrices."""
  x = np.float64(np.concatenate([query, gallery]))
  distance = ((x[:, None] - x[None]) ** 2).sum(-1)
  scaled = distance / distance.max(axis=1, keepdims=True)
  order = np.argsort(distance, axis=1, kind='stable')

  def reciprocal(i, k):
    return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

  weights = np.zeros_like(scaled)
  for i in range(len(x)):
    neighbours = reciprocal(i, k1)
    expanded = set(neighbours)
    for j in neighbours:
      candidates = reciprocal(j, round(k1 / 2))
      if len(candidates & neighbours) > 2 / 3 * len(candidates):
        expanded |= candidates
    members = sorted(expanded)
    weights[i, members] = np.exp(-scaled[i, members])
    weights[i] /= weights[i].sum()
  weights = np.stack([weights[order[i, :k2]].mean(axis=0) for i in range(len(x))])
  q, g = weights[: len(query)], weights[len(query) :]
  shared = np.minimum(q[:, None], g[None]).sum(-1)
  return -((1 - weight) * (1 - shared / (2 - shared)) + weight * scaled[: len(query), len(query) :])


@pytest.mark.parametrize(('k1', 'k2', 'weight'), [(8, 3, 0.3), (5, 1, 0.0), (12, 6, 1.0)])
@pytest.mark.parametrize('block_bytes', [1, 2**20])
def test_scores_equal_the_definition(k1, k2, weight, block_bytes, monkeypatch):
  monkeypatch.setattr(reranking, 'SCORE_BLOCK_BYTES', block_bytes)
  query, gallery = clustered(7, seed=1).features, clustered(40).features
  scores = np.empty((7, 40))
  for rows, block in reranking.Reranker(query, gallery, k1=k1, k2=k2, weight=weight).blocks():
    scores[rows] = block
  np.testing.assert_allclose(scores, by_definition(query, gallery, k1, k2, weight), atol=2e-6)


def test_reranking_improves_clustered_embeddings():
  query, gallery = clustered(10, seed=1), clustered(60)
  plain = ranking.rank(query, gallery, alpha=None)
  reranker = reranking.Reranker(query.features, gallery.features, k1=10, k2=3)
  reranked = ranking.rank_scores(reranker.blocks(), query, gallery)
  assert reranked.mean_average_precision > plain.mean_average_precision + 0.02


@pytest.mark.parametrize('protocol', ranking.PROTOCOLS)
def test_rank_scores_agrees_with_rank(protocol):
  query, gallery = clustered(10, seed=1), clustered(60)
  gallery.identity[::7] = -1
  gallery.identity[::5] = 0
  plain = ranking.rank(query, gallery, alpha=None, protocol=protocol)
  blocks = [(rows, query.features[rows] @ gallery.features.T) for rows in np.array_split(np.arange(10), 3)]
  same = ranking.rank_scores(blocks, query, gallery, protocol=protocol)
  np.testing.assert_array_equal(same.cmc, plain.cmc)
  np.testing.assert_allclose(same.per_query_ap, plain.per_query_ap)
  assert same.mean_inverse_negative_penalty == pytest.approx(plain.mean_inverse_negative_penalty)


def test_blocks_are_bounded(monkeypatch):
  monkeypatch.setattr(reranking, 'SCORE_BLOCK_BYTES', 4 * 67 * 2)
  assert match_ranks.SCORE_BLOCK_BYTES != 4 * 67 * 2
  blocks = list(reranking.Reranker(clustered(7, seed=1).features, clustered(60).features).blocks())
  assert [len(rows) for rows, _ in blocks] == [2, 2, 2, 1]


def test_reranker_refuses_fewer_images_than_neighbours():
  with pytest.raises(ValueError, match='k1=20.*< 10 images'):
    reranking.Reranker(clustered(4).features, clustered(6).features)
