"""Rankings against the release's numbers and against a direct implementation of the definition."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.data.index import Split
from dgnet_jax.evaluation import match_ranks, ranking
from dgnet_jax.evaluation.embeddings import Embeddings, pool_multi_query, weighted
from tests.parity import goldens


@pytest.fixture(scope='module')
def golden(parity_dir):
  with np.load(parity_dir / 'eval_reid.npz') as arrays:
    return dict(arrays)


def embeddings_of(golden, name):
  return Embeddings(golden[f'{name}_f'], golden[f'{name}_label'], golden[f'{name}_cam'])


def check_against_golden(ledger, result, golden, prefix):
  np.testing.assert_array_equal(result.cmc, golden[f'{prefix}/cmc'])
  assert result.cmc.dtype == np.float32
  for name, ours in (('mAP', result.mean_average_precision), ('per_query_ap', result.per_query_ap)):
    ledger.check(f'eval_reid: {prefix}', goldens.relative_error(ours, golden[f'{prefix}/{name}']), 1e-12, name)
  np.testing.assert_array_equal(result.per_query_valid, golden[f'{prefix}/per_query_valid'])
  assert [np.float32(result.at(k)) for k in (1, 5, 10)] == golden[f'{prefix}/rank_1_5_10'].tolist()


@pytest.mark.parametrize('block_bytes', [1, 5000, 2**20])
@pytest.mark.parametrize('alpha', [0, 0.5, -1])
def test_rank_equals_the_release(golden, alpha, block_bytes, monkeypatch, ledger):
  monkeypatch.setattr(match_ranks, 'SCORE_BLOCK_BYTES', block_bytes)
  result = ranking.rank(embeddings_of(golden, 'query'), embeddings_of(golden, 'gallery'), alpha=alpha)
  check_against_golden(ledger, result, golden, f'alpha_{alpha}')


def test_more_scores_than_float32_counts_are_counted_as_integers(monkeypatch):
  rng = np.random.default_rng(0)
  scores, own = rng.standard_normal((4, 64), np.float32), rng.standard_normal((4, 8), np.float32)
  expected = (scores[:, None] >= own[:, :, None]).sum(-1)
  for exact_counts in (64, 63):
    monkeypatch.setattr(match_ranks, 'EXACT_COUNTS', exact_counts)
    np.testing.assert_array_equal(match_ranks._count_above(scores, own, 8), expected)


def test_multi_query_equals_the_release(golden, ledger):
  query, gallery = embeddings_of(golden, 'query'), embeddings_of(golden, 'gallery')
  pooled = pool_multi_query(query, embeddings_of(golden, 'mquery'))
  result = ranking.rank(pooled, gallery, alpha=0.5)
  check_against_golden(ledger, result, golden, 'multi')


def test_query_without_extra_images_keeps_its_features():
  query = Embeddings(np.float32([[1, 0], [0, 1]]), np.array([1, 2]), np.array([1, 1]))
  features = np.float32([[3, 1], [5, 1], [9, 9], [7, 7]])
  extra = Embeddings(features, np.array([1, 1, 1, 2]), np.array([1, 1, 2, 2]))
  pooled = pool_multi_query(query, extra)
  np.testing.assert_array_equal(pooled.features, [[4, 1], [0, 1]])
  assert pooled.identity.tolist() == [1, 2] and pooled.camera.tolist() == [1, 1]


def test_selected_embeddings_keep_their_labels():
  selected = Embeddings(np.eye(3), np.array([5, 6, 7]), np.array([1, 2, 3])).select(np.array([2, 0]))
  assert len(selected) == 2 and selected.identity.tolist() == [7, 5] and selected.camera.tolist() == [3, 1]
  np.testing.assert_array_equal(selected.features, [[0, 0, 1], [1, 0, 0]])


def test_weighted_leaves_its_argument_unchanged():
  query = Embeddings(np.ones((2, 4)), np.ones(2, int), np.ones(2, int))
  np.testing.assert_array_equal(weighted(query, 0.25).features, [[1, 1, 0.25, 0.25]] * 2)
  np.testing.assert_array_equal(weighted(query, -1).features, [[0, 0, 1, 1]] * 2)
  assert weighted(query, None) is query and (query.features == 1).all()


def rank_by_definition(query, gallery, alpha, protocol):
  """One image at a time; among equal scores negatives come first."""
  half = query.features.shape[1] // 2
  curve, precisions, valid = np.zeros(len(gallery)), [], []
  for features, identity, camera in zip(query.features, query.identity, query.camera, strict=True):
    if alpha == -1:
      features = np.concatenate([0 * features[:half], features[half:]])
    elif alpha is not None:
      features = np.concatenate([features[:half], alpha * features[half:]])
    entries = []
    for other, other_identity, other_camera in zip(gallery.features, gallery.identity, gallery.camera, strict=True):
      if other_identity == -1 or (other_identity == identity != 0 and other_camera == camera):
        continue
      entries.append((-float(features @ other), bool(other_identity == identity != 0)))
    hits = [is_match for _, is_match in sorted(entries)]
    area, num_found = 0.0, 0
    for position, hit in enumerate(hits):
      if hit:
        before = num_found / position if position else 1.0
        num_found += 1
        precision = num_found / (position + 1)
        area += (before + precision) / 2 if protocol == 'release' else precision
    valid.append(num_found > 0)
    precisions.append(area / max(num_found, 1))
    if num_found:
      curve[hits.index(True) :] += 1
  count = len(valid) if protocol == 'release' else sum(valid)
  return curve / max(count, 1), sum(precisions) / max(count, 1), precisions, valid


@st.composite
def searches(draw):
  """Queries and a gallery with junk, distractors and many ties (features are small integers)."""

  def images(least_identity, size):
    count = draw(st.integers(1, size))
    rows = st.lists(st.integers(-2, 2), min_size=4, max_size=4)
    features = np.float32(draw(st.lists(rows, min_size=count, max_size=count)))
    identity = np.int32(draw(st.lists(st.integers(least_identity, 3), min_size=count, max_size=count)))
    camera = np.int32(draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)))
    return Embeddings(features, identity, camera)

  return images(1, 4), images(-1, 12)


@settings(deadline=None, max_examples=100)
@given(searches(), st.sampled_from([0, 0.5, 2, -1, None]), st.sampled_from(ranking.PROTOCOLS))
def test_rank_equals_the_definition(search, alpha, protocol):
  query, gallery = search
  cmc, mean, precisions, valid = rank_by_definition(query, gallery, alpha, protocol)
  if protocol == 'standard' and not any(valid):
    with pytest.raises(ValueError, match='no query has a match'):
      ranking.rank(query, gallery, alpha=alpha, protocol=protocol)
    return
  result = ranking.rank(query, gallery, alpha=alpha, protocol=protocol)
  np.testing.assert_allclose(result.cmc, cmc, rtol=1e-6)
  np.testing.assert_allclose(result.per_query_ap, precisions, rtol=1e-12)
  np.testing.assert_array_equal(result.per_query_valid, valid)
  assert result.mean_average_precision == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize('protocol', ranking.PROTOCOLS)
def test_chance_is_the_mean_over_all_orders(protocol):
  query = Embeddings(np.ones((3, 1)), np.array([1, 2, 3]), np.array([1, 1, 1]))  # identity 3 has no match
  identity, camera = np.array([1, 1, 0, -1, 2]), np.array([2, 3, 1, 1, 2])
  galleries = [Embeddings(np.float64(order)[:, None], identity, camera) for order in itertools.permutations(range(5))]
  orders = [ranking.rank(query, gallery, alpha=None, protocol=protocol) for gallery in galleries]
  expected = ranking.chance(query, galleries[0], protocol=protocol)
  np.testing.assert_allclose(expected.cmc, np.mean([o.cmc for o in orders], axis=0), rtol=1e-5)
  np.testing.assert_allclose(expected.per_query_ap, np.mean([o.per_query_ap for o in orders], axis=0), rtol=1e-12)
  np.testing.assert_array_equal(expected.per_query_valid, orders[0].per_query_valid)


def test_chance_takes_the_splits_of_a_data_set():
  query = Split(('a', 'b'), np.array([1, 2]), np.array([1, 1]))
  gallery = Split(('c', 'd'), np.array([1, 2]), np.array([2, 2]))
  assert ranking.chance(query, gallery).at(1) == 0.5


def test_constant_embedding_scores_nothing():
  query = Embeddings(np.ones((1, 2)), np.array([1]), np.array([1]))
  result = ranking.rank(query, Embeddings(np.ones((4, 2)), np.array([1, 2, 2, 2]), np.full(4, 2)), alpha=0.5)
  assert result.at(1) == result.at(3) == 0 and result.at(4) == result.at(100) == 1


def test_best_matches_agree_with_the_ranking(golden):
  query, gallery = embeddings_of(golden, 'query'), embeddings_of(golden, 'gallery')
  best = ranking.best_matches(query, gallery, alpha=0.5, count=1)
  correct = [gallery.identity[b[0]] == identity for b, identity in zip(best, query.identity, strict=True)]
  assert np.float32(np.mean(correct)) == golden['alpha_0.5/cmc'][0]
  assert all(gallery.identity[b[0]] != -1 for b in best)


def test_best_matches_leave_out_junk():
  query = Embeddings(np.ones((2, 2)), np.array([1, 0]), np.array([1, 1]))
  features = np.arange(10.0).reshape(5, 2)
  gallery = Embeddings(features, np.array([1, 0, 1, 2, -1]), np.array([2, 1, 1, 1, 2]))
  best = ranking.best_matches(query, gallery, alpha=1, count=4)
  assert [row.tolist() for row in best] == [[3, 1, 0], [3, 2, 1, 0]]  # a distractor matches nothing, itself included


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'alpha': -0.5}, 'neither a weight'),
    ({'protocol': 'other'}, 'not one of'),
    ({'query': np.ones((2, 3)), 'gallery': np.ones((2, 3))}, r'shape=\(2, 3\) is odd'),
    ({'query': np.ones((2, 2))}, 'different numbers of features'),
    ({'query': np.ones((3, 4))}, r'query: features.shape=\(3, 4\) identity.shape=\(2,\)'),
    ({'gallery': np.ones((2, 4, 1))}, 'gallery: features.shape'),
    ({'gallery': np.full((2, 4), np.nan)}, 'gallery.*not finite'),
  ],
)
def test_rank_refuses_invalid_arguments(change, message):
  arguments = {'query': np.ones((2, 4)), 'gallery': np.ones((2, 4)), 'alpha': 0.5} | change
  for name in ('query', 'gallery'):
    arguments[name] = Embeddings(arguments[name], np.ones(2, np.int32), np.ones(2, np.int32))
  with pytest.raises(ValueError, match=message):
    ranking.rank(**arguments)
