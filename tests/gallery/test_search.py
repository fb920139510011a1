"""Exact and approximate search, and re-ranking."""

import os
import warnings

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.config.schema import RerankingConfig
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.reranking import Reranker
from dgnet_jax.gallery import search
from dgnet_jax.gallery.faiss_index import ABOUT, INDEX, faiss_search
from dgnet_jax.gallery.gallery import Gallery, open_gallery
from dgnet_jax.gallery.photos import Labels, Photo
from dgnet_jax.gallery.ranking import rank_gallery
from dgnet_jax.gallery.search import most_similar, rerank
from dgnet_jax.gallery.store import Description, GalleryStore, Row

SIZE = 32


@given(
  shape=st.tuples(st.integers(1, 40), st.integers(1, 5)),
  count=st.none() | st.integers(1, 50),
  block=st.integers(1, 50),
  levels=st.integers(1, 4),
  seed=st.integers(0, 1000),
)
def test_the_best_are_those_of_a_stable_sort(shape, count, block, levels, seed):
  """Small whole numbers: many scores are equal, and all are exact."""
  num_entries, num_queries = shape
  rng = np.random.default_rng(seed)
  features = rng.integers(0, levels, (num_entries, 3)).astype(np.float32)
  queries = rng.integers(0, levels, (num_queries, 3)).astype(np.float32)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(search, 'BLOCK_ENTRIES', block)
    patch.setattr(search, 'BLOCK_QUERIES', 2)
    found = most_similar(features, queries, count)
  for query, (index, scores) in zip(queries, found, strict=True):
    expected = np.argsort(-(features @ query), kind='stable')[:count]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(scores, (features @ query)[expected])


def test_scores_that_are_not_finite_are_an_error():
  features = np.ones((3, 2), np.float32)
  features[1, 1] = np.nan
  with pytest.raises(UserError, match='not finite'):
    most_similar(features, np.ones((1, 2), np.float32), 2)


def clustered(rng, num_people, per_person, noise=0.7):
  """Unit vectors around a centre for each person, and the person of each."""
  centres = rng.standard_normal((num_people, SIZE))
  vectors = np.repeat(centres, per_person, axis=0) + noise * rng.standard_normal((num_people * per_person, SIZE))
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors.astype(np.float32), np.repeat(np.arange(num_people), per_person)


def test_reranking_is_that_of_the_evaluation():
  vectors, _ = clustered(np.random.default_rng(0), 6, 8)
  settings = RerankingConfig(k1=5, k2=2)
  ((_, scores),) = Reranker(vectors[:1], vectors[1:], k1=5, k2=2, weight=0.3).blocks()
  np.testing.assert_array_equal(rerank(vectors[0], vectors[1:], settings), np.argsort(-scores[0], kind='stable'))
  with pytest.raises(UserError, match='k1 = 20'):
    rerank(vectors[0], vectors[1:10], RerankingConfig())


def test_candidates_are_reranked_and_the_others_follow(monkeypatch):
  monkeypatch.setattr('dgnet_jax.gallery.ranking.CANDIDATES', 10)
  vectors, _ = clustered(np.random.default_rng(1), 6, 8)
  shares, gallery = np.float32([1]), Gallery([''] * 47, vectors[1:])
  arguments = {'shares': shares, 'search': 'exact', 'threshold': None}
  (plain,) = rank_gallery(vectors[:1], gallery, count=10, reranking=None, **arguments)
  (ranked,) = rank_gallery(vectors[:1], gallery, count=10, reranking=RerankingConfig(k1=4, k2=2), **arguments)
  order = rerank(vectors[0], gallery.features[[match.index for match in plain]], RerankingConfig(k1=4, k2=2))
  assert [match.index for match in ranked] == [plain[i].index for i in order]
  assert {match.index: match.score for match in ranked} == {match.index: match.score for match in plain}
  (few,) = rank_gallery(vectors[:1], gallery, count=3, reranking=RerankingConfig(k1=4, k2=2), **arguments)
  assert few == ranked[:3]


@pytest.fixture(scope='module')
def faiss():
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', DeprecationWarning)  # of its bindings, by SWIG
    return pytest.importorskip('faiss')


@pytest.mark.usefixtures('faiss')
class TestFaiss:
  @pytest.fixture
  def stored(self, tmp_path):
    pytest.importorskip('pyarrow')
    vectors, _ = clustered(np.random.default_rng(2), 400, 10)
    return self.store(tmp_path / 'gallery', vectors), vectors

  def store(self, folder, vectors):
    """Stores vectors as a gallery would be."""
    folder.mkdir(exist_ok=True)
    empty = Description(networks='a', step=1, run='r', image_size_hw=(8, 4), size=SIZE, num_pieces=1)
    store = GalleryStore(folder, empty)
    parts = []
    for start in range(0, len(vectors), 2000):
      some = vectors[start : start + 2000]
      rows = [Row(Photo('/p', f'{start + i:06d}.jpg'), Labels(None, None, None), 1, 1, 'x') for i in range(len(some))]
      parts.append(store.add(rows, some))
      store.replace(Description(**{**vars(empty), 'parts': tuple(parts)}))
    return open_gallery(folder)

  def test_recall_against_exact_search(self, stored):
    gallery, vectors = stored
    queries, count = vectors[::7], 10
    exact, found = most_similar(vectors, queries, count), faiss_search(gallery, queries, count)
    hits = [len(set(a[0].tolist()) & set(b[0].tolist())) / count for a, b in zip(exact, found, strict=True)]
    print(f'recall@{count} of {len(queries)} queries: {np.mean(hits):.4f}')
    assert np.mean(hits) > 0.9
    for (index, scores), query in zip(found, queries, strict=True):
      np.testing.assert_allclose(scores, vectors[index] @ query, atol=1e-5)
      assert (np.diff(scores) <= 0).all()

  def test_the_index_is_kept_and_built_anew_when_stale(self, stored):
    gallery, vectors = stored
    faiss_search(gallery, vectors[:1], 3)
    built = os.stat(gallery.folder / INDEX).st_mtime_ns
    faiss_search(open_gallery(gallery.folder), vectors[:1], 3)
    assert os.stat(gallery.folder / INDEX).st_mtime_ns == built
    more = np.concatenate([vectors, vectors[5:6]])
    ((index, _),) = faiss_search(self.store(gallery.folder, more), vectors[5:6], 2)
    assert index.tolist() == [5, len(vectors)] and os.stat(gallery.folder / INDEX).st_mtime_ns > built

  @pytest.mark.parametrize('damage', [INDEX, ABOUT])
  def test_damaged_files_are_built_anew(self, stored, damage):
    gallery, vectors = stored
    faiss_search(gallery, vectors[:1], 3)
    (gallery.folder / damage).write_bytes(b'x')
    ((index, _),) = faiss_search(gallery, vectors[:1], 1)
    assert index.tolist() == [0]

  def test_a_gallery_in_memory_is_refused(self):
    with pytest.raises(UserError, match='needs a gallery on disk'):
      faiss_search(Gallery([''], np.ones((1, 2), np.float32)), np.ones((1, 2), np.float32), 1)


def test_unknown_searches_are_refused():
  gallery = Gallery([''], np.ones((1, 2), np.float32))
  arguments = {'shares': np.float32([1]), 'reranking': None, 'threshold': None}
  with pytest.raises(UserError, match="search='near'"):
    rank_gallery(np.ones((1, 2), np.float32), gallery, count=1, search='near', **arguments)
  with pytest.raises(UserError, match='needs a gallery on disk'):
    rank_gallery(np.ones((1, 2), np.float32), gallery, count=None, search='faiss', **arguments)
