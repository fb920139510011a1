"""Embeds the images of a split, for rankings and figures."""

from dgnet_jax.data.index import DatasetIndex, Split
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.inference.predictor import Predictor, TeacherPredictor
from dgnet_jax.reports.ranking import SplitEmbeddings
from dgnet_jax.training.agreement import gather_rows, share_of


def embed_splits(
  index: DatasetIndex, size_hw: tuple[int, int], predictor: Predictor | TeacherPredictor, title: str
) -> SplitEmbeddings:
  """Embeds query, gallery and multi_query of an index, each process its share.

  Args:
    index: of the data set.
    size_hw: of the images that the predictor takes.
    predictor: of the network.
    title: names the network in progress lines.

  Returns:
    All embeddings, in every process.
  """

  def embed(name: str, split: Split) -> Embeddings:
    share = split.paths[share_of(len(split))]
    images = ImageFiles(share or split.paths[:1], size_hw)  # a process without a share takes part all the same
    features = predictor.embed(images, label=f'{title}: embedding {name}')[: len(share)]
    return Embeddings(gather_rows(features, len(split)), split.identity, split.camera)

  return SplitEmbeddings(
    query=embed('query', index.query),
    gallery=embed('gallery', index.gallery),
    multi_query=embed('multi_query', index.multi_query) if len(index.multi_query) else None,
  )
