"""Queries with and without a match."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.data.index import LabeledImage, Split, make_index
from dgnet_jax.data.matches import has_match, require_matches, why_nothing_matches
from dgnet_jax.errors import NoMatches
from dgnet_jax.evaluation.match_ranks import judge_relevance

labels = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 2)), min_size=1, max_size=6)


def split_of(rows):
  identity, camera = np.array(rows, np.int32).T
  return Split(tuple(map(str, range(len(rows)))), identity, camera)


@given(labels, labels)
@settings(max_examples=100, deadline=None)
def test_valid_queries_are_those_that_the_ranking_finds_matches_for(queries, gallery):
  query, gallery = split_of(queries), split_of(gallery)
  np.testing.assert_array_equal(has_match(query, gallery), judge_relevance(query, gallery).is_match.any(axis=1))


def index_of(query, gallery):
  """An index of (identity, camera) pairs."""
  images = {'query': query, 'gallery': gallery}
  rows = {
    split: [LabeledImage(f'{split}{i}', *pair) for i, pair in enumerate(pairs)] for split, pairs in images.items()
  }
  return make_index('folders', 'root', rows)


@pytest.mark.parametrize(
  ('query', 'gallery', 'words'),
  [
    ([('Anna', '1'), ('Ben', '1')], [('Anna', '1'), ('Ben', '1'), ('Cleo', '2')], "query's own camera .* are 1"),
    ([('Anna', '1')], [('Ben', '2')], 'no identity is in both splits .query: Anna; gallery: Ben'),
    ([('Anna', '1')], [('distractor', '2')], 'no identity is in both splits'),
    ([('Anna', '1')], [('junk', '2')], 'no identity is in both splits'),
  ],
)
def test_cause_is_named_if_nothing_matches(query, gallery, words):
  with pytest.raises(NoMatches, match=f'root: none of the {len(query)} queries has a match.*{words}'):
    require_matches(index_of(query, gallery))


@pytest.mark.parametrize(
  ('query', 'gallery'),
  [
    ([('Anna', '1'), ('Ben', '1')], [('Anna', '2'), ('Ben', '1')]),
    ([], [('Anna', '1')]),  # a missing split is reported as such
    ([('Anna', '1')], []),
  ],
)
def test_one_match_is_enough(query, gallery):
  assert not why_nothing_matches(index_of(query, gallery))
