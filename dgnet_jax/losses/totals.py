"""The weighted sum of named loss terms."""

from collections.abc import Mapping

from dgnet_jax.types import Array


def weighted_total(terms: Mapping[str, Array], weights: Mapping[str, Array | float]) -> Array:
  """Sums `weights[name] * terms[name]`; both must have the same names.

  Args:
    terms: loss terms by name, f32[B] or any other common shape.
    weights: weights by name, f32[].

  Returns:
    An array of the terms' shape.

  Raises:
    ValueError: there are no terms, or a term has no weight, or a weight has no term.
  """
  if not terms:
    raise ValueError('no terms')
  if terms.keys() != weights.keys():
    without_weight, without_term = sorted(terms.keys() - weights.keys()), sorted(weights.keys() - terms.keys())
    raise ValueError(f'terms without a weight: {without_weight}; weights without a term: {without_term}')
  weighted = [weights[name] * term for name, term in sorted(terms.items())]
  return sum(weighted[1:], start=weighted[0])
