"""Latency of one search: embedding an image, and ranking random galleries, beside the bare matrix product."""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.benchmarks.timing import Alternative, median_seconds, print_ratios
from dgnet_jax.config.schema import Config
from dgnet_jax.gallery.gallery import Gallery
from dgnet_jax.gallery.ranking import rank_gallery
from dgnet_jax.inference import functions
from dgnet_jax.inference.scoring import piece_shares
from dgnet_jax.models.build import make_networks
from dgnet_jax.utils.xla_options import jit_network

COUNT = 10  # matches of the query
PEOPLE = 64  # identities of the fresh networks; embedding does not depend on them
DRAWN = 2**14  # entries drawn at a time


def benchmark_gallery(config: Config, *, sizes: Sequence[int], rounds: int) -> None:
  """Prints the times of one query, with fresh networks and random entries.

  Args:
    config: the networks, the size of images, and the weight of the halves.
    sizes: numbers of entries.
    rounds: number of calls that count.
  """
  networks = make_networks(config, PEOPLE)
  params, batch_stats = networks.init_reid(jax.random.key(0))
  height, width = config.data.image_size_hw
  image = jax.random.uniform(jax.random.key(1), (1, height, width, 3), minval=-1, maxval=1)
  compiled = jit_network(functools.partial(functions.embedding, networks))

  def embed() -> None:
    np.asarray(compiled(params, batch_stats, jnp.asarray(image)))

  query = np.asarray(compiled(params, batch_stats, image))
  print(
    f'one image of {height}x{width}, {query.shape[1]} numbers, {config.compute_dtype}, {jax.devices()[0].device_kind}'
  )
  seconds = median_seconds({'embed': embed}, rounds)
  print(f'  embed one image  {1000 * seconds["embed"]:.1f} ms')
  for size in sizes:
    features = _random_entries(size, query.shape[1])
    _measure(features, query, piece_shares(config), rounds)
    del features  # before the next, which may be larger


def _random_entries(size: int, dimensions: int) -> np.ndarray:
  rng = np.random.default_rng(0)
  features = np.empty((size, dimensions), np.float32)
  for start in range(0, size, DRAWN):
    some = features[start : start + DRAWN]
    some[:] = rng.standard_normal(some.shape, np.float32)
    some /= np.linalg.norm(some, axis=1, keepdims=True)
  return features


def _measure(features: np.ndarray, query: np.ndarray, shares: np.ndarray, rounds: int) -> None:
  gallery = Gallery([''] * len(features), features)

  def product() -> None:
    features @ query[0]

  def rank() -> None:
    rank_gallery(query, gallery, shares=shares, count=COUNT, search='exact', reranking=None, thresholds=[None])

  def sort() -> None:
    np.argsort(-(features @ query[0]), kind='stable')

  alternatives: dict[str, Alternative] = {'gallery @ query': product, f'rank, the best {COUNT}': rank, 'sort all': sort}
  print(f'{len(features):,} entries, {features.nbytes / 2**20:,.0f} MiB')
  print_ratios(median_seconds(alternatives, rounds), 'gallery @ query')
