"""One score: that of embeddings of length 1 ranks as evaluation does."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation import ranking
from dgnet_jax.evaluation.embeddings import FINE_ONLY, Embeddings
from dgnet_jax.inference.scoring import piece_shares, scored
from tests.inference.linear_networks import unit


def config_of_style(style):
  return dataclasses.replace(Config(), reid=dataclasses.replace(Config().reid, style=style, num_parts=4))


@settings(deadline=None, max_examples=30)
@given(
  st.integers(0, 10**6), st.sampled_from([0.0, FINE_ONLY, 1.0]) | st.floats(0, 100), st.sampled_from(ranking.PROTOCOLS)
)
def test_ranks_are_those_of_evaluation(seed, alpha, protocol):
  draw = np.random.default_rng(seed)

  def images(count):
    halves = unit(draw.normal(size=(count, 2, 5))).reshape(count, -1)
    return Embeddings(halves, np.arange(count) % 4 + 1, draw.integers(1, 3, count))

  query, gallery = images(6), images(40)
  shares = np.float64(piece_shares(Config(), alpha))
  embeddings = [part.with_features(scored(part.features, shares)) for part in (query, gallery)]
  for part in embeddings:
    np.testing.assert_allclose(np.linalg.norm(part.features, axis=1), 1, rtol=1e-6)
  expected = ranking.rank(query, gallery, alpha=alpha, protocol=protocol)
  actual = ranking.rank(*embeddings, alpha=None, protocol=protocol)
  np.testing.assert_array_equal(actual.cmc, expected.cmc)
  np.testing.assert_array_equal(actual.per_query_ap, expected.per_query_ap)


@pytest.mark.parametrize(('style', 'pieces'), [('AB', 2), ('normal', 1), ('PCB', 4)])
def test_every_style_has_embeddings_of_length_one(style, pieces):
  features = unit(np.random.default_rng(0).normal(size=(3, pieces, 6))).reshape(3, -1).astype(np.float32)
  shares = piece_shares(config_of_style(style))
  for array in (features, jnp.asarray(features)):
    embeddings = scored(array, shares)
    assert isinstance(embeddings, type(array)) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
  cosines = (features[0] * features[1]).reshape(pieces, -1).sum(axis=1)
  assert embeddings[0] @ embeddings[1] == pytest.approx(cosines @ shares, abs=1e-6)


@pytest.mark.parametrize('alpha', [-0.5, np.nan, np.inf])
def test_other_weights_are_refused(alpha):
  with pytest.raises(UserError, match='must be at least 0'):
    piece_shares(Config(), alpha)
