"""Exact and approximate search, and re-ranking."""

from concurrent.futures import ThreadPoolExecutor
import dataclasses
import errno
import os
import uuid
import warnings

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.config.schema import RerankingConfig
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.reranking import Reranker
from dgnet_jax.gallery import faiss_index, search
from dgnet_jax.gallery.faiss_index import ABOUT, INDEX, faiss_search
from dgnet_jax.gallery.gallery import Gallery, open_gallery
from dgnet_jax.gallery.photos import Labels, Photo
from dgnet_jax.gallery.ranking import check_search, rank_gallery
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


@pytest.mark.parametrize('count', range(8))
def test_few_entries_can_be_reranked(count):
  vectors, _ = clustered(np.random.default_rng(0), 2, 8)
  assert sorted(rerank(vectors[0], vectors[1 : 1 + count], RerankingConfig())) == list(range(count))


def test_candidates_are_reranked_and_the_others_follow(monkeypatch):
  monkeypatch.setattr('dgnet_jax.gallery.ranking.CANDIDATES', 10)
  vectors, _ = clustered(np.random.default_rng(1), 6, 8)
  shares, gallery = np.float32([1]), Gallery([''] * 47, vectors[1:])
  arguments = {'shares': shares, 'search': 'exact', 'thresholds': [None]}
  (plain,) = rank_gallery(vectors[:1], gallery, count=10, reranking=None, **arguments)
  (ranked,) = rank_gallery(vectors[:1], gallery, count=10, reranking=RerankingConfig(k1=4, k2=2), **arguments)
  order = rerank(vectors[0], gallery.features[[match.index for match in plain]], RerankingConfig(k1=4, k2=2))
  assert [match.index for match in ranked] == [plain[i].index for i in order]
  assert {match.index: match.score for match in ranked} == {match.index: match.score for match in plain}
  (few,) = rank_gallery(vectors[:1], gallery, count=3, reranking=RerankingConfig(k1=4, k2=2), **arguments)
  assert few == ranked[:3]
  (everything,) = rank_gallery(vectors[:1], gallery, count=None, reranking=RerankingConfig(k1=4, k2=2), **arguments)
  (by_score,) = rank_gallery(vectors[:1], gallery, count=None, reranking=None, **arguments)
  assert everything == ranked + by_score[10:]


def test_queries_that_are_tracks_have_no_threshold():
  vectors, _ = clustered(np.random.default_rng(1), 2, 2)
  gallery = Gallery([''] * 4, vectors)
  arguments = {'shares': np.float32([1]), 'search': 'exact', 'count': 1, 'reranking': None}
  found = rank_gallery(vectors[:2], gallery, thresholds=[0.5, None], **arguments)
  assert [matches[0].same_person for matches in found] == [True, None]


def test_scores_are_cut_to_their_range():
  match = Gallery([''], np.ones((1, 2), np.float32)).match
  assert match(0, 1.0000002, None).score == 1 and match(0, -1.0000002, None).score == -1


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
    empty = Description(
      networks='a', id=uuid.uuid4().hex, step=1, run='r', image_size_hw=(8, 4), size=SIZE, num_pieces=1
    )
    store = GalleryStore(folder, empty)
    parts = []
    for start in range(0, len(vectors), 2000):
      some = vectors[start : start + 2000]
      rows = [Row(Photo('/p', f'{start + i:06d}.jpg'), Labels(None, None, None), 1, 1, 'x') for i in range(len(some))]
      parts.append(store.add(rows, some))
      store.replace(dataclasses.replace(store.description, parts=tuple(parts)))
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

  def test_the_index_stays_open_until_its_files_change(self, stored, monkeypatch):
    gallery, vectors = stored
    opened, read = [], faiss_index._read
    monkeypatch.setattr(faiss_index, '_read', lambda *arguments: opened.append(0) or read(*arguments))
    first = faiss_search(gallery, vectors[:5], 3)  # builds
    faiss_search(gallery, vectors[:5], 3)  # opens
    before = len(opened)
    for some, again in zip(first, faiss_search(gallery, vectors[:5], 3), strict=True):
      np.testing.assert_array_equal(some[0], again[0])
    assert len(opened) == before
    os.utime(gallery.folder / INDEX)
    faiss_search(gallery, vectors[:5], 3)
    assert len(opened) == before + 1
    faiss_search(open_gallery(gallery.folder), vectors[:5], 3)
    assert len(opened) == before + 2

  def test_threads_search_one_index_with_different_counts(self, stored):
    gallery, vectors = stored
    alone = {count: faiss_search(gallery, vectors[:1], count)[0][0].tolist() for count in (3, 1500)}
    with ThreadPoolExecutor(4) as pool:
      for count, found in pool.map(lambda count: (count, faiss_search(gallery, vectors[:1], count)), [3, 1500] * 20):
        assert found[0][0].tolist() == alone[count]

  @pytest.mark.parametrize('damage', [INDEX, ABOUT])
  def test_damaged_files_are_built_anew(self, stored, damage):
    gallery, vectors = stored
    faiss_search(gallery, vectors[:1], 3)
    (gallery.folder / damage).write_bytes(b'x')
    ((index, _),) = faiss_search(gallery, vectors[:1], 1)
    assert index.tolist() == [0]

  def test_as_many_are_found_as_are_asked_for(self, stored):
    gallery, vectors = stored
    exact, found = most_similar(vectors, vectors[:2], 1500), faiss_search(gallery, vectors[:2], 1500)
    for (index, scores), (_, best) in zip(found, exact, strict=True):
      assert len(set(index.tolist())) == 1500 and (np.diff(scores) <= 0).all() and scores[0] == pytest.approx(best[0])
    assert len(faiss_search(gallery, vectors[:1], 10**6)[0][0]) == len(vectors)

  def test_a_gallery_that_was_opened_before_a_change_writes_no_index(self, stored):
    gallery, vectors = stored
    fresh = self.store(gallery.folder, np.roll(vectors, 1, axis=0))
    with pytest.raises(UserError, match='has changed since it was opened'):
      faiss_search(gallery, vectors[:1], 1)
    ((index, _),) = faiss_search(fresh, vectors[:1], 1)
    assert index.tolist() == [1]

  def test_a_saved_index_needs_no_writable_folder(self, stored, monkeypatch):
    gallery, vectors = stored

    def read_only(*_, **__):
      raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr('dgnet_jax.gallery.faiss_index.exclusive', read_only)
    with pytest.raises(UserError, match=r'cannot be written to \(Read-only.*use search=exact'):
      faiss_search(gallery, vectors[:1], 1)
    monkeypatch.undo()
    faiss_search(gallery, vectors[:1], 1)
    monkeypatch.setattr('dgnet_jax.gallery.faiss_index.exclusive', read_only)
    assert faiss_search(gallery, vectors[:1], 1)[0][0].tolist() == [0]

  def test_a_gallery_in_memory_is_refused(self):
    with pytest.raises(UserError, match='needs a gallery on disk'):
      faiss_search(Gallery([''], np.ones((1, 2), np.float32)), np.ones((1, 2), np.float32), 1)


def test_unknown_searches_are_refused():
  gallery = Gallery([''], np.ones((1, 2), np.float32))
  arguments = {'shares': np.float32([1]), 'reranking': None, 'thresholds': [None]}
  with pytest.raises(UserError, match="search='near'"):
    rank_gallery(np.ones((1, 2), np.float32), gallery, count=1, search='near', **arguments)
  with pytest.raises(UserError, match='needs a gallery on disk'):
    rank_gallery(np.ones((1, 2), np.float32), gallery, count=None, search='faiss', **arguments)


@pytest.mark.parametrize('count', [2.5, True, 0, '3'])
def test_wrong_counts_are_refused_first(count):
  with pytest.raises(UserError, match='must be a whole number, at least 1'):
    check_search('exact', count, None)
