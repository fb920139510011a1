"""k-reciprocal re-ranking against its definition, set by set."""

import numpy as np
import pytest

from dgnet_jax.evaluation import match_ranks, ranking, reranking


def people(count, size=6, noise=0.6, seed=0):
  """Embeddings of length 1 around a direction for each person, with identities and cameras."""
  draw = np.random.default_rng(seed)
  identity = np.arange(count) % 5 + 1
  directions = np.random.default_rng(7).standard_normal((6, size))
  embedding = directions[identity] + noise * draw.standard_normal((count, size))
  return (np.float32(embedding / np.linalg.norm(embedding, axis=1, keepdims=True)), identity, np.arange(count) % 3)


def by_definition(query, gallery, k1, k2, weight):
  """Scores [Q, G] from sets and full matrices, float64."""
  x = np.float64(np.concatenate([query, gallery]))
  distance = ((x[:, None] - x[None]) ** 2).sum(-1)
  scaled = distance / distance.max(axis=1, keepdims=True)
  order = np.argsort(distance, axis=1, kind='stable')

  def reciprocal(i, k):
    return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

  weights = np.zeros_like(scaled)
  for i in range(len(x)):
    mine = reciprocal(i, k1)
    group = set(mine)
    for j in mine:
      theirs = reciprocal(j, round(k1 / 2))
      if len(theirs & mine) > 2 / 3 * len(theirs):
        group |= theirs
    members = sorted(group)
    weights[i, members] = np.exp(-scaled[i, members])
    weights[i] /= weights[i].sum()
  weights = np.stack([weights[order[i, :k2]].mean(axis=0) for i in range(len(x))])
  q, g = weights[: len(query)], weights[len(query) :]
  shared = np.minimum(q[:, None], g[None]).sum(-1)
  return -((1 - weight) * (1 - shared / (2 - shared)) + weight * scaled[: len(query), len(query) :])


@pytest.mark.parametrize(('k1', 'k2', 'weight'), [(8, 3, 0.3), (5, 1, 0.0), (12, 6, 1.0)])
@pytest.mark.parametrize('block_bytes', [1, 2**20])
def test_equals_the_definition(k1, k2, weight, block_bytes, monkeypatch):
  monkeypatch.setattr(reranking, 'SCORE_BLOCK_BYTES', block_bytes)
  query, gallery = people(7, seed=1)[0], people(40)[0]
  scores = np.empty((7, 40))
  for rows, block in reranking.Reranked(query, gallery, k1=k1, k2=k2, weight=weight).blocks():
    scores[rows] = block
  np.testing.assert_allclose(scores, by_definition(query, gallery, k1, k2, weight), atol=2e-6)


def test_it_helps_where_people_form_groups():
  query, gallery = people(10, seed=1), people(60)
  plain = ranking.rank(*query, *gallery, alpha=None)
  reranked = reranking.Reranked(query[0], gallery[0], k1=10, k2=3)
  better = ranking.rank_scores(reranked.blocks(), *query[1:], *gallery[1:])
  assert better.mean_average_precision > plain.mean_average_precision + 0.02


@pytest.mark.parametrize('protocol', ranking.PROTOCOLS)
def test_scores_are_ranked_as_embeddings_are(protocol):
  query, gallery = people(10, seed=1), people(60)
  gallery[1][::7] = -1
  gallery[1][::5] = 0
  plain = ranking.rank(*query, *gallery, alpha=None, protocol=protocol)
  blocks = [(rows, query[0][rows] @ gallery[0].T) for rows in np.array_split(np.arange(10), 3)]
  same = ranking.rank_scores(blocks, *query[1:], *gallery[1:], protocol=protocol)
  np.testing.assert_array_equal(same.cmc, plain.cmc)
  np.testing.assert_allclose(same.per_query_ap, plain.per_query_ap)
  assert same.mean_inverse_negative_penalty == pytest.approx(plain.mean_inverse_negative_penalty)


def test_memory_is_a_block(monkeypatch):
  monkeypatch.setattr(reranking, 'SCORE_BLOCK_BYTES', 4 * 67 * 2)
  assert match_ranks.SCORE_BLOCK_BYTES != 4 * 67 * 2
  blocks = list(reranking.Reranked(people(7, seed=1)[0], people(60)[0]).blocks())
  assert [len(rows) for rows, _ in blocks] == [2, 2, 2, 1]


def test_what_does_not_fit_is_named():
  with pytest.raises(ValueError, match='k1=20.*< 10 images'):
    reranking.Reranked(people(4)[0], people(6)[0])
