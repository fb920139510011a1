"""Rankings by pairs of cameras."""

import numpy as np
import pytest

from dgnet_jax.evaluation.camera_pairs import rank_camera_pairs
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.ranking import rank


def images(*rows):
  """Embeddings from rows (angle in degrees, identity, camera)."""
  angle, identity, camera = np.array(rows).T
  angle = np.deg2rad(angle)
  features = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
  return Embeddings(features, identity.astype(int), camera.astype(int))


def test_values_by_hand():
  query = images((0, 1, 1), (90, 2, 1), (0, 1, 2), (0, 3, 2))
  # Camera 1 has person 1 only; camera 2 both, and the distractor (0) is closer to the second query than its match.
  gallery = images((5, 1, 1), (10, 1, 2), (60, 2, 2), (80, 0, 2), (90, -1, 2))
  pairs = rank_camera_pairs(query, gallery, protocol='standard')
  assert pairs.query_cameras.tolist() == [1, 2] == pairs.gallery_cameras.tolist()
  assert pairs.num_queries.tolist() == [[0, 2], [1, 0]]
  np.testing.assert_allclose(pairs.rank_1, [[np.nan, 0.5], [1, np.nan]])
  np.testing.assert_allclose(pairs.mean_average_precision, [[np.nan, 0.75], [1, np.nan]])


@pytest.mark.parametrize('protocol', ['release', 'standard'])
def test_a_gallery_of_one_camera_is_ranked_as_usual(protocol):
  draw = np.random.default_rng(0)
  query, gallery = (
    Embeddings(draw.standard_normal((n, 8)).astype(np.float32), draw.integers(low, 5, n), draw.integers(0, 3, n))
    for n, low in ((30, 1), (90, -1))
  )
  pairs = rank_camera_pairs(query, gallery, protocol=protocol)
  for i, j in np.argwhere(pairs.num_queries > 0):
    chosen = gallery.select(np.flatnonzero(gallery.camera == j))
    asked = query.select(np.flatnonzero((query.camera == i) & np.isin(query.identity, chosen.identity)))
    expected = rank(asked, chosen, alpha=None, protocol=protocol)
    assert pairs.num_queries[i, j] == len(asked)
    np.testing.assert_allclose(pairs.rank_1[i, j], expected.at(1))
    np.testing.assert_allclose(pairs.mean_average_precision[i, j], expected.mean_average_precision)
  assert np.diagonal(pairs.num_queries).tolist() == [0, 0, 0] and (pairs.num_queries > 0).sum() == 6
