"""Rankings against the release's numbers and against a loop that follows the definition word by word."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.evaluation import match_ranks, ranking
from tests.parity import goldens


@pytest.fixture(scope='module')
def golden(parity_dir):
  with np.load(parity_dir / 'eval_reid.npz') as arrays:
    return dict(arrays)


def parts(golden, name):
  return golden[f'{name}_f'], golden[f'{name}_label'], golden[f'{name}_cam']


def check_against_golden(ledger, result, golden, prefix):
  np.testing.assert_array_equal(result.cmc, golden[f'{prefix}/cmc'])
  assert result.cmc.dtype == np.float32
  for name, ours in (('mAP', result.mean_average_precision), ('per_query_ap', result.per_query_ap)):
    ledger.check(f'eval_reid: {prefix}', goldens.relative_error(ours, golden[f'{prefix}/{name}']), 1e-12, name)
  np.testing.assert_array_equal(result.per_query_valid, golden[f'{prefix}/per_query_valid'])
  assert [np.float32(result.at(k)) for k in (1, 5, 10)] == golden[f'{prefix}/rank_1_5_10'].tolist()


@pytest.mark.parametrize('block_bytes', [1, 5000, 2**20])
@pytest.mark.parametrize('alpha', [0, 0.5, -1])
def test_release_numbers(golden, alpha, block_bytes, monkeypatch, ledger):
  monkeypatch.setattr(match_ranks, 'SCORE_BLOCK_BYTES', block_bytes)
  result = ranking.rank(*parts(golden, 'query'), *parts(golden, 'gallery'), alpha=alpha)
  check_against_golden(ledger, result, golden, f'alpha_{alpha}')


def test_release_multi_query(golden, ledger):
  query, gallery = parts(golden, 'query'), parts(golden, 'gallery')
  pooled = ranking.multi_query_embedding(*query, *parts(golden, 'mquery'))
  result = ranking.rank(pooled, *query[1:], *gallery, alpha=0.5)
  check_against_golden(ledger, result, golden, 'multi')


def test_multi_query_without_extra_images_keeps_the_query():
  query = np.float32([[1, 0], [0, 1]])
  extra = np.float32([[3, 1], [5, 1], [9, 9], [7, 7]])
  pooled = ranking.multi_query_embedding(
    query, np.array([1, 2]), np.array([1, 1]), extra, np.array([1, 1, 1, 2]), np.array([1, 1, 2, 2])
  )
  np.testing.assert_array_equal(pooled, [[4, 1], [0, 1]])


def loop(query, gallery, alpha, protocol):
  """The definition, one image at a time; equal scores put the wrong image first."""
  half = query[0].shape[1] // 2
  curve, precisions, valid = np.zeros(len(gallery[1])), [], []
  for embedding, identity, camera in zip(*query, strict=True):
    if alpha == -1:
      embedding = np.concatenate([0 * embedding[:half], embedding[half:]])
    elif alpha is not None:
      embedding = np.concatenate([embedding[:half], alpha * embedding[half:]])
    entries = []
    for other, other_identity, other_camera in zip(*gallery, strict=True):
      if other_identity == -1 or (other_identity == identity != 0 and other_camera == camera):
        continue
      entries.append((-float(embedding @ other), bool(other_identity == identity != 0)))
    hits = [is_right for _, is_right in sorted(entries)]
    area, found = 0.0, 0
    for position, hit in enumerate(hits):
      if hit:
        before = found / position if position else 1.0
        found += 1
        precision = found / (position + 1)
        area += (before + precision) / 2 if protocol == 'release' else precision
    valid.append(found > 0)
    precisions.append(area / max(found, 1))
    if found:
      curve[hits.index(True) :] += 1
  count = len(valid) if protocol == 'release' else sum(valid)
  return curve / max(count, 1), sum(precisions) / max(count, 1), precisions, valid


@st.composite
def searches(draw):
  """Queries and a gallery with junk, distractors and many ties (embeddings of small integers)."""

  def people(least_identity, size):
    count = draw(st.integers(1, size))
    rows = st.lists(st.integers(-2, 2), min_size=4, max_size=4)
    embedding = np.float32(draw(st.lists(rows, min_size=count, max_size=count)))
    identity = np.int32(draw(st.lists(st.integers(least_identity, 3), min_size=count, max_size=count)))
    camera = np.int32(draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)))
    return embedding, identity, camera

  return people(1, 4), people(-1, 12)


@settings(deadline=None, max_examples=100)
@given(searches(), st.sampled_from([0, 0.5, 2, -1, None]), st.sampled_from(ranking.PROTOCOLS))
def test_equals_a_loop_over_the_definition(search, alpha, protocol):
  query, gallery = search
  cmc, mean, precisions, valid = loop(query, gallery, alpha, protocol)
  if protocol == 'standard' and not any(valid):
    with pytest.raises(ValueError, match='no query has a match'):
      ranking.rank(*query, *gallery, alpha=alpha, protocol=protocol)
    return
  result = ranking.rank(*query, *gallery, alpha=alpha, protocol=protocol)
  np.testing.assert_allclose(result.cmc, cmc, rtol=1e-6)
  np.testing.assert_allclose(result.per_query_ap, precisions, rtol=1e-12)
  np.testing.assert_array_equal(result.per_query_valid, valid)
  assert result.mean_average_precision == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize('protocol', ranking.PROTOCOLS)
def test_chance_is_the_mean_over_all_orders(protocol):
  query_identity, query_camera = np.array([1, 2, 3]), np.array([1, 1, 1])  # person 3 has no match
  gallery_identity, gallery_camera = np.array([1, 1, 0, -1, 2]), np.array([2, 3, 1, 1, 2])
  expected = ranking.chance(query_identity, query_camera, gallery_identity, gallery_camera, protocol=protocol)
  orders = [
    ranking.rank(
      np.ones((3, 1)),
      query_identity,
      query_camera,
      np.float64(order)[:, None],
      gallery_identity,
      gallery_camera,
      alpha=None,
      protocol=protocol,
    )
    for order in itertools.permutations(range(5))
  ]
  np.testing.assert_allclose(expected.cmc, np.mean([o.cmc for o in orders], axis=0), rtol=1e-5)
  np.testing.assert_allclose(expected.per_query_ap, np.mean([o.per_query_ap for o in orders], axis=0), rtol=1e-12)
  np.testing.assert_array_equal(expected.per_query_valid, orders[0].per_query_valid)


def test_constant_embedding_earns_nothing():
  gallery_identity = np.array([1, 2, 2, 2])
  result = ranking.rank(
    np.ones((1, 2)), np.array([1]), np.array([1]), np.ones((4, 2)), gallery_identity, np.array([2] * 4), alpha=0.5
  )
  assert result.at(1) == result.at(3) == 0 and result.at(4) == result.at(100) == 1


def test_best_matches_agree_with_the_ranking(golden):
  query, gallery = parts(golden, 'query'), parts(golden, 'gallery')
  best = ranking.best_matches(*query, *gallery, alpha=0.5, count=1)
  right = [gallery[1][b[0]] == identity for b, identity in zip(best, query[1], strict=True)]
  assert np.float32(np.mean(right)) == golden['alpha_0.5/cmc'][0]
  assert all(gallery[1][b[0]] != -1 for b in best)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'alpha': -0.5}, 'neither a weight'),
    ({'protocol': 'other'}, 'not one of'),
    ({'query_embedding': np.ones((2, 3))}, 'has no halves'),
    ({'query_embedding': np.ones((3, 4))}, 'queries'),
    ({'gallery_embedding': np.full((2, 4), np.nan)}, 'gallery.*not finite'),
  ],
)
def test_what_does_not_fit_is_named(change, message):
  ones = np.ones(2, np.int32)
  arguments = {
    'query_embedding': np.ones((2, 4)),
    'query_identity': ones,
    'query_camera': ones,
    'gallery_embedding': np.ones((2, 4)),
    'gallery_identity': ones,
    'gallery_camera': ones,
    'alpha': 0.5,
  }
  with pytest.raises(ValueError, match=message):
    ranking.rank(**(arguments | change))
