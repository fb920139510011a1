"""Ranks a gallery for queries."""

from collections.abc import Sequence
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from dgnet_jax.config.schema import RerankingConfig
from dgnet_jax.errors import UserError
from dgnet_jax.gallery.faiss_index import check_faiss, faiss_search
from dgnet_jax.gallery.gallery import Gallery, Match
from dgnet_jax.gallery.search import CANDIDATES, most_similar, rerank
from dgnet_jax.inference.scoring import scored

SEARCHES = ('exact', 'faiss')


def check_search(search: str, count: Any, gallery: Gallery | None) -> None:
  """Checks how a gallery is to be searched, before anything is embedded.

  Args:
    search: one of `SEARCHES`.
    count: matches per query; None is all.
    gallery: the gallery, if it is made already.

  Raises:
    UserError: `search` is unknown, needs a count, or cannot search this gallery here; or the count is not allowed.
  """
  if search not in SEARCHES:
    raise UserError(f'{search=} is not one of {", ".join(SEARCHES)}')
  if count is not None and (isinstance(count, bool) or not hasattr(count, '__index__') or operator.index(count) < 1):
    raise UserError(f'{count=} must be a whole number, at least 1')
  if search == 'faiss':
    check_faiss(gallery)
    if count is None:
      raise UserError('search=faiss needs a count')


def rank_gallery(
  features: npt.NDArray[np.float32],
  gallery: Gallery,
  *,
  shares: npt.NDArray[np.float32],
  count: int | None,
  search: str,
  reranking: RerankingConfig | None,
  thresholds: Sequence[float | None],
) -> list[list[Match]]:
  """Finds the matches of every query.

  Args:
    features: f32[Q, D], queries as `Predictor.embed` returns them, before weighting.
    gallery: the entries to search.
    shares: f32[P], from `piece_shares`.
    count: matches per query; None is all.
    search: one of `SEARCHES`.
    reranking: settings of the re-ranking of the best; None does not re-rank.
    thresholds: the lowest score of one person's images, if that is known, for each query.

  Raises:
    UserError: as `check_search`.
  """
  check_search(search, count, gallery)
  num_candidates = max(CANDIDATES, count or 0)
  wanted = num_candidates if reranking and count else count
  weighted = scored(scored(features, shares), shares)  # the gallery's roots, too: a gallery may be large
  if search == 'exact':
    found = most_similar(gallery.features, weighted, wanted)
  else:
    found = faiss_search(gallery, weighted, wanted or num_candidates)
  rankings = []
  for query, (index, scores), threshold in zip(features, found, thresholds, strict=True):
    if reranking:
      best, others = np.split(np.arange(len(index)), [num_candidates])
      candidates = scored(gallery.features[index[best]], shares)
      order = np.concatenate([rerank(scored(query, shares), candidates, reranking), others])
      index, scores = index[order], scores[order]
    rankings.append(
      [gallery.match(int(i), float(s), threshold) for i, s in zip(index[:count], scores[:count], strict=True)]
    )
  return rankings
