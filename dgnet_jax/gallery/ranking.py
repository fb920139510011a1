"""Ranks a gallery for queries."""

import pathlib

import numpy as np
import numpy.typing as npt

from dgnet_jax.config.schema import RerankingConfig
from dgnet_jax.errors import UserError
from dgnet_jax.gallery.faiss_index import check_faiss, faiss_search
from dgnet_jax.gallery.gallery import Gallery, Match
from dgnet_jax.gallery.search import CANDIDATES, most_similar, rerank
from dgnet_jax.inference.scoring import scored

SEARCHES = ('exact', 'faiss')


def check_search(search: str, count: int | None, folder: pathlib.Path | None) -> None:
  """Checks how a gallery is to be searched, before anything is embedded.

  Args:
    search: one of `SEARCHES`.
    count: matches per query.
    folder: of the gallery, if it is stored.

  Raises:
    UserError: `search` is unknown, needs a count, or cannot search this gallery here.
  """
  if search not in SEARCHES:
    raise UserError(f'{search=} is not one of {", ".join(SEARCHES)}')
  if search == 'faiss':
    check_faiss(folder)
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
  threshold: float | None,
) -> list[list[Match]]:
  """Finds the matches of every query.

  Args:
    features: f32[Q, D], queries as `Predictor.embed` returns them, before weighting.
    gallery: the entries to search.
    shares: f32[P], from `piece_shares`.
    count: matches per query; None is all.
    search: one of `SEARCHES`.
    reranking: settings of the re-ranking of the best; None does not re-rank.
    threshold: the lowest score of one person's images, if that is known.

  Raises:
    UserError: as `check_search`.
  """
  check_search(search, count, gallery.folder)
  num_candidates = max(CANDIDATES, count or len(gallery))
  wanted = num_candidates if reranking and count else count
  weighted = scored(scored(features, shares), shares)  # the gallery's roots, too: a gallery may be large
  if search == 'exact':
    found = most_similar(gallery.features, weighted, wanted)
  else:
    found = faiss_search(gallery, weighted, wanted or num_candidates)
  rankings = []
  for query, (index, scores) in zip(features, found, strict=True):
    if reranking:
      best = index[:num_candidates]
      order = rerank(scored(query, shares), scored(gallery.features[best], shares), reranking)
      index, scores = index[order], scores[order]
    rankings.append(
      [gallery.match(int(i), float(s), threshold) for i, s in zip(index[:count], scores[:count], strict=True)]
    )
  return rankings
