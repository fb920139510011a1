"""Pooling by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.pooling import average_pool, max_pool, stripe_pool


def test_average_pool_does_not_count_the_padding():
  x = jnp.arange(6.0).reshape(1, 2, 3, 1)  # 0 1 2 / 3 4 5
  expected = [[2.0, 2.5, 3.0], [2.0, 2.5, 3.0]]  # both rows, two or three columns
  np.testing.assert_allclose(average_pool(x)[0, ..., 0], expected)
  np.testing.assert_allclose(average_pool(jnp.ones((1, 5, 4, 2))), 1.0)


def test_max_pool_ignores_the_padding():
  x = -jnp.arange(6.0).reshape(1, 2, 3, 1)
  np.testing.assert_array_equal(max_pool(x)[0, ..., 0], [[0, 0, -1], [0, 0, -1]])


def test_stride_and_padding_set_the_output_size():
  x = jnp.ones((1, 8, 4, 2))
  assert max_pool(x, stride=2).shape == average_pool(x, stride=2).shape == (1, 4, 2, 2)
  assert max_pool(x, stride=2, padding=0).shape == (1, 3, 1, 2)


@pytest.mark.parametrize(
  ('kind', 'expected'), [('max', [[3.0, 13.0], [5.0, 15.0]]), ('avg', [[1.5, 11.5], [3.5, 13.5]])]
)
def test_stripes_overlap_if_they_do_not_divide_the_height(kind, expected):
  """Two stripes of three rows both have the middle one, as in torch's adaptive pooling."""
  x = jnp.stack([jnp.arange(6.0), 10 + jnp.arange(6.0)], axis=-1).reshape(1, 3, 2, 2)
  np.testing.assert_array_equal(stripe_pool(x, 2, kind)[0], expected)


def test_max_pooling_of_stripes_has_one_gradient_among_equal_maxima():
  gradient = jax.grad(lambda x: stripe_pool(x, 1, 'max').sum())(jnp.ones((1, 2, 2, 1)))
  np.testing.assert_array_equal(gradient.ravel(), [1, 0, 0, 0])
