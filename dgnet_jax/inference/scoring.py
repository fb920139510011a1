"""The score of two images: the dot product of their embeddings, which have length 1.

What networks compute (`functions.embedding`) has pieces of length 1 each: a primary and a fine-grained half in style
AB, one piece in style normal, one per part in style PCB. The score is the weighted mean of the pieces' cosines. With
the root of its share in both embeddings, each piece enters the dot product with its share.
"""

from typing import TypeVar

import jax
import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.embeddings import FINE_ONLY

Floats = TypeVar('Floats', np.ndarray, jax.Array)


def piece_shares(config: Config, alpha: float | None = None) -> np.ndarray:
  """Returns the share of each piece in the score: f32[pieces], with sum 1.

  Args:
    config: the run's config.
    alpha: weight of the fine-grained half, relative to the primary half; 0 is the primary half alone, -1 the
      fine-grained half alone. The default is the run's `evaluation.alpha`. Only style AB has two halves.

  Raises:
    UserError: alpha is not allowed.
  """
  reid = config.reid
  if reid.style != 'AB':
    if alpha is not None:
      raise UserError(f'{alpha=} weights the fine-grained half, which style {reid.style} does not have')
    pieces = reid.num_parts if reid.style == 'PCB' else 1
    return np.full(pieces, 1 / pieces, np.float32)
  alpha = config.evaluation.alpha if alpha is None else alpha
  if alpha != FINE_ONLY and not 0 <= alpha < np.inf:
    raise UserError(f'{alpha=} must be at least 0, or {FINE_ONLY:g} for the fine-grained half alone')
  primary = 0.0 if alpha == FINE_ONLY else 1 / (1 + alpha)
  return np.array([primary, 1 - primary], np.float32)


def scored(features: Floats, shares: np.ndarray) -> Floats:
  """Scales each piece by the root of its share, so that dot products are scores.

  Args:
    features: f[..., P * D], P pieces of length 1 each.
    shares: f32[P], from `piece_shares`.

  Returns:
    f[..., P * D] of length 1.
  """
  pieces = features.reshape(*features.shape[:-1], len(shares), -1)
  embeddings: Floats = (pieces * np.sqrt(shares)[:, None]).reshape(features.shape)
  return embeddings
