"""Ranks a split while DG-Net or its teacher trains."""

import jax

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.evaluation import ranking
from dgnet_jax.inference.predictor import Predictor, TeacherPredictor
from dgnet_jax.inference.scoring import piece_shares
from dgnet_jax.models.networks import Networks
from dgnet_jax.models.teacher import TeacherNetwork
from dgnet_jax.plots.curves import RANKED
from dgnet_jax.reports.embedding import embed_splits
from dgnet_jax.reports.ranking import alpha_of, metrics_of
from dgnet_jax.reports.tracklets import tracklet_embeddings
from dgnet_jax.sharding import local_copy, make_mesh, replicated
from dgnet_jax.training.agreement import from_first_process
from dgnet_jax.training.teacher_step import TeacherState
from dgnet_jax.training.validation import Measure
from dgnet_jax.types import NetworkState, Params, Teacher, TrainState


def make_measure(config: Config, index: DatasetIndex) -> Measure:
  """Returns a function that ranks the gallery of an index with the embedding of a training state.

  It measures what `dgnet evaluate` does, single query, with the halves weighted by `evaluation.alpha`, and returns the
  metrics `plots.curves.RANKED` as fractions. All processes call it; they share the embedding, and the first ranks.
  """

  def measure(networks: Networks | TeacherNetwork, state: TrainState | TeacherState) -> dict[str, float]:
    predictor = _predictor(config, networks, state, index.num_identities)
    is_teacher = isinstance(predictor, TeacherPredictor)
    title = 'teacher' if is_teacher else 'DG-Net'
    embeddings = embed_splits(index, config.data.image_size_hw, predictor, title)

    def ranked() -> dict[str, float]:
      images, alpha = embeddings, None if is_teacher else alpha_of(config.reid, config.evaluation)
      if config.evaluation.tracklets:
        images = tracklet_embeddings(images, index, 1 if is_teacher else len(piece_shares(config)))
      result = ranking.rank(images.query, images.gallery, alpha=alpha, protocol=config.evaluation.protocol)
      metrics = metrics_of(result)
      return {name: metrics[name] for name in RANKED}

    return from_first_process(ranked)

  return measure


def _predictor(
  config: Config, networks: Networks | TeacherNetwork, state: TrainState | TeacherState, num_identities: int
) -> Predictor | TeacherPredictor:
  """Returns what embeds images with a training state of DG-Net or of a teacher."""
  mesh, batch_size = make_mesh(jax.local_devices()), config.evaluation.batch_size

  def here(network: NetworkState) -> tuple[Params, Params]:
    placed: tuple[Params, Params] = jax.device_put(local_copy((network.params, network.batch_stats)), replicated(mesh))
    return placed

  if isinstance(networks, TeacherNetwork):
    assert isinstance(state, TeacherState)
    return TeacherPredictor(networks, Teacher(*here(state.network)), mesh, batch_size)
  assert isinstance(state, TrainState)
  reid, reid_stats = here(state.reid)
  return Predictor(
    networks=networks,
    generator=None,
    reid=reid,
    reid_stats=reid_stats,
    mesh=mesh,
    batch_size=batch_size,
    num_identities=num_identities,
    step=int(state.step),
  )
