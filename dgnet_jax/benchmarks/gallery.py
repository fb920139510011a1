"""Latency of one search: embedding an image, and ranking random galleries, beside the bare matrix product.

On request also of galleries on disk: reading them, and searching them with FAISS.
"""

from collections.abc import Sequence
import dataclasses
import functools
import importlib.util
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.benchmarks.timing import Alternative, median_seconds, print_ratios
from dgnet_jax.config.schema import Config
from dgnet_jax.gallery.faiss_index import faiss_search
from dgnet_jax.gallery.gallery import Gallery, open_gallery
from dgnet_jax.gallery.photos import Labels, Photo
from dgnet_jax.gallery.ranking import rank_gallery
from dgnet_jax.gallery.search import most_similar
from dgnet_jax.gallery.store import ROWS, Description, GalleryStore, Row
from dgnet_jax.inference import functions
from dgnet_jax.inference.scoring import piece_shares
from dgnet_jax.models.build import make_networks
from dgnet_jax.utils.extras import require_pyarrow
from dgnet_jax.utils.xla_options import jit_network

COUNT = 10  # matches of the query
PEOPLE = 64  # identities of the fresh networks; embedding does not depend on them
IMAGES_PER_PERSON = 10  # in the galleries
DRAWN = 16_000  # entries drawn at a time: whole people
QUERIES = 100  # of the recall of FAISS


def benchmark_gallery(config: Config, *, sizes: Sequence[int], rounds: int, stored: bool = False) -> None:
  """Prints the times of one query, with fresh networks and random entries.

  Args:
    config: the networks, the size of images, and the weight of the halves.
    sizes: numbers of entries.
    rounds: number of calls that count.
    stored: also write every gallery to a temporary folder, to read it and to search it with FAISS, if that is
      installed. The folder gets twice as large as the embeddings; the memory needed is more than four times their size.

  Raises:
    UserError: pyarrow is not installed, and `stored` needs it.
  """
  if stored:
    require_pyarrow('--stored', 'or leave it out')
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
    if stored:
      with tempfile.TemporaryDirectory(prefix='dgnet_gallery_') as folder:
        _store(pathlib.Path(folder), features)
        _measure_stored(pathlib.Path(folder), features[:: max(1, size // QUERIES)][:QUERIES].copy(), rounds)
    del features  # before the next, which may be larger


def _random_entries(size: int, dimensions: int) -> np.ndarray:
  """Returns f32[size, dimensions] of length 1. Images of one person have similarity 0.5 on average, others 0."""
  rng = np.random.default_rng(0)
  features = np.empty((size, dimensions), np.float32)
  for start in range(0, size, DRAWN):
    some = features[start : start + DRAWN]
    some[:] = rng.standard_normal(some.shape, np.float32)
    people = rng.standard_normal((-(-len(some) // IMAGES_PER_PERSON), dimensions), np.float32)
    some += np.repeat(people, IMAGES_PER_PERSON, axis=0)[: len(some)]
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


def _store(folder: pathlib.Path, features: np.ndarray) -> None:
  """Writes the entries as a gallery of photos."""
  size = features.shape[1]
  description = Description(networks='', id=folder.name, step=0, run='', image_size_hw=(0, 0), size=size, num_pieces=1)
  store, parts = GalleryStore(folder, description), []
  for start in range(0, len(features), ROWS):
    some = features[start : start + ROWS]
    rows = [Row(Photo('/photos', f'{start + i:09d}.jpg'), Labels(None, None, None), 0, 0, '') for i in range(len(some))]
    parts.append(store.add(rows, some))
  store.replace(dataclasses.replace(store.description, parts=tuple(parts)))


def _measure_stored(folder: pathlib.Path, queries: np.ndarray, rounds: int) -> None:
  """Prints the times of reading a gallery that was just written, and how fast and how well FAISS searches it."""
  start = time.perf_counter()
  gallery = open_gallery(folder)
  opened = time.perf_counter()
  features = gallery.features
  print(f'  open on disk  {opened - start:.3f} s')
  print(f'  read the embeddings  {time.perf_counter() - opened:.3f} s')
  if importlib.util.find_spec('faiss') is None:
    print('  FAISS is not installed')
    return
  one = queries[:1]

  def exact() -> None:
    most_similar(features, one, COUNT)

  def approximate() -> None:
    faiss_search(gallery, one, COUNT)

  start = time.perf_counter()
  approximate()
  print(f'  build the index of FAISS  {time.perf_counter() - start:.1f} s')
  pairs = zip(faiss_search(gallery, queries, COUNT), most_similar(features, queries, COUNT), strict=True)
  shares = [len(np.intersect1d(found, best)) / len(best) for (found, _), (best, _) in pairs]
  print(f'  FAISS finds {np.mean(shares):.1%} of the best {COUNT} of {len(queries)} queries')
  print_ratios(median_seconds({'exact': exact, 'FAISS': approximate}, rounds), 'exact')
