"""Ranks a split while DG-Net trains."""

from collections.abc import Callable

import jax

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.evaluation import ranking
from dgnet_jax.inference.predictor import Predictor
from dgnet_jax.models.networks import Networks
from dgnet_jax.plots.curves import RANKED
from dgnet_jax.reports.embedding import embed_splits
from dgnet_jax.reports.ranking import alpha_of, metrics_of
from dgnet_jax.sharding import local_copy, make_mesh, replicated
from dgnet_jax.training.agreement import from_first_process
from dgnet_jax.types import TrainState


def make_measure(config: Config, index: DatasetIndex) -> Callable[[Networks, TrainState], dict[str, float]]:
  """Returns a function that ranks the gallery of an index with the embedding of a training state.

  It measures what `dgnet evaluate` does, single query, with the halves weighted by `evaluation.alpha`, and returns the
  metrics `plots.curves.RANKED` as fractions. All processes call it; they share the embedding, and the first ranks.
  """
  mesh = make_mesh(jax.local_devices())

  def measure(networks: Networks, state: TrainState) -> dict[str, float]:
    reid, reid_stats = jax.device_put(local_copy((state.reid.params, state.reid.batch_stats)), replicated(mesh))
    predictor = Predictor(
      networks=networks,
      generator=None,
      reid=reid,
      reid_stats=reid_stats,
      mesh=mesh,
      batch_size=config.evaluation.batch_size,
      num_identities=index.num_identities,
      step=int(state.step),
    )
    embeddings = embed_splits(index, config.data.image_size_hw, predictor, 'DG-Net')

    def ranked() -> dict[str, float]:
      alpha = alpha_of(config.reid, config.evaluation)
      result = ranking.rank(embeddings.query, embeddings.gallery, alpha=alpha, protocol=config.evaluation.protocol)
      metrics = metrics_of(result)
      return {name: metrics[name] for name in RANKED}

    return from_first_process(ranked)

  return measure
