"""The map keeps neighbours together and does not depend on chance."""

import numpy as np
import pytest

from dgnet_jax.evaluation.tsne import MIN_IMAGES, tsne_map

pytest.importorskip('sklearn', reason="the extra 'plots' is not installed: pip install -e '.[plots]'")


def embeddings(num_people, images_each, seed=0):
  draw = np.random.default_rng(seed)
  centers = np.repeat(draw.standard_normal((num_people, 16)), images_each, axis=0)
  return (centers + 0.1 * draw.standard_normal(centers.shape)).astype(np.float32)


def test_images_of_a_person_lie_together():
  found = tsne_map(embeddings(4, 10), seed=0, perplexity=5)
  distances = np.linalg.norm(found.places[:, None] - found.places, axis=-1)
  nearest = np.argsort(distances, axis=1)[:, 1]
  assert (nearest // 10 == np.arange(40) // 10).all()
  assert found.places.shape == (40, 2) and found.perplexity == 5 and found.divergence < 1


def test_the_map_does_not_depend_on_chance():
  first, again = (tsne_map(embeddings(4, 10), seed=10**17).places for _ in range(2))
  np.testing.assert_array_equal(first, again)


def test_few_images_get_a_smaller_perplexity():
  found = tsne_map(embeddings(1, MIN_IMAGES), seed=0)
  assert found.perplexity == pytest.approx((MIN_IMAGES - 1) / 3) and np.isfinite(found.places).all()
