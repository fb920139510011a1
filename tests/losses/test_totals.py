"""The weighted total of loss terms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.losses.totals import weighted_total


def test_value_by_hand_and_under_jit():
  terms = {'a': jnp.array([1.0, 2.0]), 'b': jnp.array([10.0, 0.0])}
  np.testing.assert_allclose(weighted_total(terms, {'a': 2.0, 'b': 0.5}), [7.0, 4.0])
  np.testing.assert_allclose(jax.jit(weighted_total)(terms, {'b': 0.5, 'a': jnp.array(2.0)}), [7.0, 4.0])


def test_gradient_is_the_weight():
  gradient = jax.grad(lambda x: weighted_total({'a': x, 'b': x}, {'a': 2.0, 'b': 3.0}).sum())(jnp.ones(2))
  np.testing.assert_allclose(gradient, [5.0, 5.0])


def test_terms_and_weights_without_a_counterpart_are_reported():
  with pytest.raises(ValueError, match=r"without a weight: \['b'\]; weights without a term: \['c', 'd'\]"):
    weighted_total({'a': jnp.ones(2), 'b': jnp.ones(2)}, {'a': 1.0, 'c': 1.0, 'd': 1.0})
  with pytest.raises(ValueError, match='no terms'):
    weighted_total({}, {})
