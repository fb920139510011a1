"""Queries that fail: those whose best gallery image is not a match, the worst first."""

import dataclasses

import numpy as np
import numpy.typing as npt

from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.match_ranks import judge_relevance, match_ranks


@dataclasses.dataclass(frozen=True, eq=False)
class Failure:
  """A query with gallery images that score higher than its first match.

  query: its index. rank: of the first match, from 2. wrong: i64[n], gallery indices of the highest-scored images, all
  of other people. wrong_scores: f[n]. match: gallery index of the first match. match_score: its score.
  """

  query: int
  rank: int
  wrong: npt.NDArray[np.int64]
  wrong_scores: npt.NDArray[np.floating]
  match: int
  match_score: float


def first_match_ranks(query: Embeddings, gallery: Embeddings) -> npt.NDArray[np.int64]:
  """Returns i64[Q], the rank of every query's first match, 1 is best; 0 without a match.

  Args:
    query: Q images, with features f[Q, D] already weighted by alpha.
    gallery: G images, with features f[G, D].
  """
  ranks = match_ranks(query.features, gallery.features, judge_relevance(query, gallery))
  return ranks[:, 0] + 1


def worst_queries(ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
  """Returns the indices of the queries that fail, from `first_match_ranks`, the worst first."""
  failing = np.flatnonzero(ranks > 1)
  worst: npt.NDArray[np.int64] = failing[np.argsort(-ranks[failing], kind='stable')]
  return worst


def describe_failure(query: Embeddings, gallery: Embeddings, index: int, *, num_wrong: int) -> Failure:
  """Finds what a failing query found instead of its match.

  Negatives with the score of a match rank before it, as in all rankings here.

  Args:
    query: Q images, with features f[Q, D] already weighted by alpha.
    gallery: G images, with features f[G, D].
    index: of a query that has a match.
    num_wrong: wrong images to name, at most.
  """
  scores = gallery.features @ query.features[index]
  same = (gallery.identity == query.identity[index]) & (gallery.identity > 0)
  matches = np.flatnonzero(same & (gallery.camera != query.camera[index]))
  match = int(matches[np.argmax(scores[matches])])
  above = np.flatnonzero(~same & (gallery.identity >= 0) & (scores >= scores[match]))
  wrong = above[np.argsort(-scores[above], kind='stable')][:num_wrong]
  return Failure(index, len(above) + 1, wrong, scores[wrong], match, float(scores[match]))
