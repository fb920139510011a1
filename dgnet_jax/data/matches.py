"""Which queries can be answered: a match is a gallery image of the query's identity by another camera."""

import numpy as np
import numpy.typing as npt

from dgnet_jax.data.index import DISTRACTOR, DatasetIndex, Split, summarize
from dgnet_jax.errors import NoMatches


def has_match(query: Split, gallery: Split) -> npt.NDArray[np.bool_]:
  """Returns bool[Q]: whether the gallery holds a match of each query, which makes it a valid query."""
  cameras_of: dict[int, set[int]] = {}
  for identity, camera in zip(gallery.identity.tolist(), gallery.camera.tolist(), strict=True):
    if identity > DISTRACTOR:
      cameras_of.setdefault(identity, set()).add(camera)
  labels = zip(query.identity.tolist(), query.camera.tolist(), strict=True)
  return np.array([bool(cameras_of.get(identity, set()) - {camera}) for identity, camera in labels], bool)


def why_nothing_matches(index: DatasetIndex) -> str:
  """Says why no query has a match; '' if one has, or if there are no queries or no gallery."""
  query, gallery = index.query, index.gallery
  if not len(query) or not len(gallery) or has_match(query, gallery).any():
    return ''
  shared = np.intersect1d(query.identity, gallery.identity)
  start = f'{index.root}: none of the {len(query)} queries has a match in the gallery: '
  if not len(shared):
    queried, others = (
      summarize([index.identity_names[int(identity)] for identity in np.unique(split.identity)])
      for split in (query, gallery)
    )
    return f'{start}no identity is in both splits (query: {queried}; gallery: {others}). Check the identities.'
  own = np.isin(gallery.identity, shared)
  cameras = summarize([index.camera_names[int(camera)] for camera in np.unique(gallery.camera[own])])
  return (
    f"{start}all gallery images of the queries' identities are by the query's own camera (the cameras are {cameras}), "
    'and such images never count. Check how cameras are read (data.camera_pattern, or the column of the table).'
  )


def require_matches(index: DatasetIndex) -> None:
  """Raises NoMatches if no query has a match, so that there is nothing to evaluate."""
  problem = why_nothing_matches(index)
  if problem:
    raise NoMatches(problem)
