"""Time of CMC and mAP, compared with a bare matrix product and with a full sort per query."""

import dataclasses
import time

import numpy as np

from dgnet_jax.benchmarks.timing import median_seconds, print_ratios
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.ranking import rank

NUM_CAMERAS = 6
SORTED_QUERIES = 64  # queries that are sorted; the time of all is extrapolated
PRODUCT_BYTES = 64 * 2**20  # of similarities computed at once


@dataclasses.dataclass(frozen=True)
class RankingSize:
  """Size of a random test set; the defaults are those of Market-1501.

  Attributes:
    queries, gallery: number of images.
    people: identities that can be found.
    distractors, junk: gallery images of these kinds.
    dimensions: number of dimensions of an embedding.
  """

  queries: int = 3368
  gallery: int = 19732
  people: int = 750
  distractors: int = 2798
  junk: int = 3819
  dimensions: int = 1024


def benchmark_ranking(size: RankingSize, *, rounds: int) -> None:
  """Prints the times for random embeddings."""
  rng = np.random.default_rng(0)
  query, gallery = (
    Embeddings(
      rng.standard_normal((count, size.dimensions), np.float32),
      rng.integers(1, size.people + 1, count),
      rng.integers(1, NUM_CAMERAS + 1, count),
    )
    for count in (size.queries, size.gallery)
  )
  gallery.identity[: size.distractors + size.junk] = np.repeat([0, -1], [size.distractors, size.junk])
  rows = max(1, PRODUCT_BYTES // (4 * size.gallery))
  num_sorted = min(SORTED_QUERIES, size.queries)

  def matrix_product() -> None:
    for start in range(0, size.queries, rows):
      query.features[start : start + rows] @ gallery.features.T

  def ranking() -> None:
    rank(query, gallery, alpha=0.5)

  def sort_per_query() -> float:
    start = time.perf_counter()
    for i in range(num_sorted):
      order = np.argsort(gallery.features @ query.features[i])[::-1]
      same = gallery.identity == query.identity[i]
      keep = ~(same & (gallery.camera == query.camera[i])) & (gallery.identity >= 0)
      np.flatnonzero(same[order][keep[order]])
    return (time.perf_counter() - start) * size.queries / num_sorted

  print(f'ranking {size.queries} queries, {size.gallery} gallery images, {size.dimensions} dimensions')
  alternatives = {'matrix product': matrix_product, 'rank': ranking, 'sort per query': sort_per_query}
  print_ratios(median_seconds(alternatives, rounds), 'matrix product')
