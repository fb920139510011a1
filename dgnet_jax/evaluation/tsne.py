"""A map of embeddings: similar images lie close together (t-SNE, van der Maaten and Hinton 2008)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dgnet_jax.evaluation.embeddings import Floats

PERPLEXITY = 30.0  # about the number of neighbours whose distances the map keeps
MIN_IMAGES = 5


class TsneMap(NamedTuple):
  """places: f32[N, 2]. perplexity: the one used. divergence: Kullback-Leibler divergence at the end, best is 0."""

  places: npt.NDArray[np.float32]
  perplexity: float
  divergence: float


def tsne_map(features: Floats, *, seed: int, perplexity: float | None = None) -> TsneMap:
  """Places N >= `MIN_IMAGES` embeddings in the plane; the same ones always at the same places.

  Runs in one thread, because several add up the gradients in an order that varies. Needs scikit-learn.

  Args:
    features: f[N, D].
    seed: of the random numbers.
    perplexity: less than N; by default `PERPLEXITY`, or a third of the other images if those are fewer.
  """
  from sklearn.manifold import TSNE  # late: an extra
  from threadpoolctl import threadpool_limits

  if perplexity is None:
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
  with threadpool_limits(1):
    tsne = TSNE(perplexity=perplexity, init='pca', random_state=seed % 2**32)  # scikit-learn takes 32 bits
    places = tsne.fit_transform(np.asarray(features, np.float32))
  return TsneMap(places, perplexity, float(tsne.kl_divergence_))
