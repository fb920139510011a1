"""The best gallery images of every query, against a direct implementation and against the scores of `rank`."""

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from dgnet_jax.evaluation import ranking, top_ranks
from dgnet_jax.evaluation.embeddings import Embeddings, weighted
from dgnet_jax.sharding import make_mesh
from tests.evaluation.test_ranking import searches


def ranked_by_definition(query, gallery, alpha):
  """All images of every query with their scores, one at a time; among equal scores negatives come first."""
  features = weighted(query, alpha).features
  for i, (identity, camera) in enumerate(zip(query.identity, query.camera, strict=True)):
    entries = []
    for j, (other, other_camera) in enumerate(zip(gallery.identity, gallery.camera, strict=True)):
      if other != -1 and not (other == identity and other_camera == camera):
        entries.append((-float(gallery.features[j] @ features[i]), bool(other == identity), j))
    yield [(j, -score) for score, _, j in sorted(entries)]


@settings(deadline=None, max_examples=60)
@given(searches(), st.sampled_from([0.5, -1, None]), st.sampled_from([1, 3, 50]), st.sampled_from([1, 4, 1024]))
def test_images_and_order_are_those_of_the_definition(search, alpha, count, block):
  query, gallery = search
  with (
    mock.patch.object(top_ranks, 'BLOCK_QUERIES', block),
    mock.patch.object(top_ranks, 'BLOCK_GALLERY', block),
    mock.patch.object(top_ranks, 'LANES', 1),
  ):
    index, scores = top_ranks.top_ranks(query, gallery, alpha=alpha, count=count)
  for i, expected in enumerate(ranked_by_definition(query, gallery, alpha)):
    found = [(j, score) for j, score in zip(index[i].tolist(), scores[i].tolist(), strict=True) if j >= 0]
    assert found == expected[:count]
    assert (index[i, len(found) :] == -1).all() and (scores[i, len(found) :] == -np.inf).all()


def random_images(rng, count, size=6):
  features = rng.standard_normal((count, size)).astype(np.float32)
  return Embeddings(features, rng.integers(1, 30, count), rng.integers(1, 4, count))


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return random_images(rng, 90), random_images(rng, 400)


def test_first_matches_are_those_of_the_curve(images):
  query, gallery = images
  index, _ = top_ranks.top_ranks(query, gallery, alpha=0.5, count=20)
  is_match = gallery.identity[index] == query.identity[:, None]
  curve = np.maximum.accumulate(is_match, axis=1).mean(axis=0)
  np.testing.assert_allclose(curve, ranking.rank(query, gallery, alpha=0.5).cmc[:20], rtol=1e-6)


def test_results_do_not_depend_on_the_number_of_devices(images, monkeypatch):
  monkeypatch.setattr(top_ranks, 'BLOCK_QUERIES', 16)
  monkeypatch.setattr(top_ranks, 'BLOCK_GALLERY', 128)
  results = [
    top_ranks.top_ranks(*images, alpha=0.5, count=7, mesh=make_mesh(jax.devices()[:count])) for count in (1, 8)
  ]
  for one, eight in zip(*results, strict=True):
    np.testing.assert_array_equal(one, eight)
