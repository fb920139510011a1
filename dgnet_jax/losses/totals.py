"""The weighted sum of named terms."""

from collections.abc import Mapping

from dgnet_jax.types import Array


def weighted_total(terms: Mapping[str, Array], weights: Mapping[str, Array | float]) -> Array:
  """The sum of `weights[name] * terms[name]`; every term must be weighted and every weight used.

  Args:
    terms: f32[B] (or any one shape) by name.
    weights: f32[] by name.

  Returns:
    Same shape as the terms.

  Raises:
    ValueError: there is no term, or the names differ; says which are without a partner.
  """
  if not terms:
    raise ValueError('no terms')
  if terms.keys() != weights.keys():
    without_weight, without_term = sorted(terms.keys() - weights.keys()), sorted(weights.keys() - terms.keys())
    raise ValueError(f'terms without a weight: {without_weight}; weights without a term: {without_term}')
  weighted = [weights[name] * term for name, term in sorted(terms.items())]
  return sum(weighted[1:], start=weighted[0])
