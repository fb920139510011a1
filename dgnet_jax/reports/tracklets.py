"""Evaluation of tracks by the protocol of MARS: their mean embeddings are ranked in place of those of images."""

import numpy as np

from dgnet_jax.data.index import DatasetIndex, Split
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.gallery.tracks import pool_tracks, track_members
from dgnet_jax.reports.ranking import SplitEmbeddings


def tracklet_embeddings(embeddings: SplitEmbeddings, index: DatasetIndex, num_pieces: int) -> SplitEmbeddings:
  """Pools the images of each track.

  As in the evaluation of MARS's authors, the query tracks are in the gallery, too: one is junk for itself, having its
  identity and camera, and a match or a negative for the others.

  Args:
    embeddings: of the images of `index`, which has tracks.
    index: index of the data set.
    num_pieces: pieces of length 1 in an embedding, such as halves.

  Returns:
    Embeddings of the query tracks and of all tracks.
  """
  query = _pooled(embeddings.query, index.query, num_pieces)
  others = _pooled(embeddings.gallery, index.gallery, num_pieces)
  gallery = Embeddings(
    np.concatenate([query.features, others.features]),
    np.concatenate([query.identity, others.identity]),
    np.concatenate([query.camera, others.camera]),
  )
  return SplitEmbeddings(query=query, gallery=gallery, multi_query=None)


def _pooled(images: Embeddings, split: Split, num_pieces: int) -> Embeddings:
  if split.track is None:
    raise ValueError('a split without tracks')
  members = track_members(split.track.tolist())
  first = [indices[0] for indices in members]
  features = pool_tracks(images.features, members, num_pieces)
  return Embeddings(features, images.identity[first], images.camera[first])
