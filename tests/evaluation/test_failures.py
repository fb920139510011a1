"""Queries that fail, the worst first."""

import numpy as np

from dgnet_jax.evaluation.failures import describe_failure, first_match_ranks, worst_queries
from tests.evaluation.test_camera_pairs import images

QUERY = images((0, 1, 1), (90, 2, 1), (45, 9, 1), (180, 4, 1))
# Of the first query: its own camera (junk), two wrong ones and the match. Of the second: a wrong one with its score.
GALLERY = images((1, 1, 1), (2, 3, 1), (4, 0, 2), (6, 1, 2), (2, -1, 3), (80, 2, 2), (80, 3, 3), (180, 4, 2))


def test_ranks_of_first_matches():
  ranks = first_match_ranks(QUERY, GALLERY)
  assert ranks.tolist() == [3, 2, 0, 1]
  assert worst_queries(ranks).tolist() == [0, 1]
  assert worst_queries(np.array([2, 5, 1, 5, 0])).tolist() == [1, 3, 0]


def test_a_failure_names_what_was_found_instead():
  failure = describe_failure(QUERY, GALLERY, 0, num_wrong=5)
  assert (failure.rank, failure.match, failure.wrong.tolist()) == (3, 3, [1, 2])
  np.testing.assert_allclose(failure.wrong_scores, np.cos(np.deg2rad([2, 4])), rtol=1e-6)
  np.testing.assert_allclose(failure.match_score, np.cos(np.deg2rad(6)), rtol=1e-6)
  assert describe_failure(QUERY, GALLERY, 0, num_wrong=1).wrong.tolist() == [1]


def test_equal_scores_count_against_the_embedding():
  failure = describe_failure(QUERY, GALLERY, 1, num_wrong=5)
  assert (failure.rank, failure.match, failure.wrong.tolist()) == (2, 5, [6])
