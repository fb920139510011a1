"""Holds some of the training identities out for validation: none of them is trained on, and all can be ranked."""

from collections.abc import Iterator
import dataclasses
import hashlib

import numpy as np
import numpy.typing as npt

from dgnet_jax.data.index import DatasetIndex, Split
from dgnet_jax.errors import UserError

MIN_TRAINING_IDENTITIES = 2  # that must be left


def hold_out(index: DatasetIndex, count: int) -> DatasetIndex:
  """Moves some of the training identities of a data set to its `validation`.

  Only identities that can be ranked are held out: with images by two cameras, or, if all training images are by one
  camera, as of an unknown one, with two images. Which ones depends on their names alone: they are those with the
  smallest hashes. So each run on the data set validates on the same people, fewer held-out identities are a part of
  more, and new people in the data set change few of them.

  As in Market-1501, a query is one image of an identity by each camera, if others by that camera remain; all other
  images are the gallery. In a data set of tracks, tracks are divided like that, and stay whole.

  Args:
    index: of the data set.
    count: number of identities to hold out.

  Returns:
    The index without them in `train`, but with `validation`.

  Raises:
    UserError: too few identities can be ranked, or fewer than two would be left to train on.
  """
  train = index.train
  one_camera = len(np.unique(train.camera)) == 1
  singles = _part(train, _first_of_tracks(train))
  able = [identity for identity, rows in _images_by_identity(singles) if _can_be_ranked(singles, rows, one_camera)]
  most = min(len(able), index.num_identities - MIN_TRAINING_IDENTITIES)
  if count > most:
    images = f'two {"images" if train.track is None else "tracks"}' if one_camera else 'images by two cameras'
    raise UserError(
      f'data.val_identities={count}: of {index.num_identities} training identities in {index.root} {len(able)} have '
      f'{images}, and {MIN_TRAINING_IDENTITIES} must be left to train on; hold out at most {max(most, 0)}'
    )
  held = np.isin(train.identity, sorted(able, key=lambda identity: _hash(index.identity_names[identity]))[:count])
  training = dataclasses.replace(index, train=_part(train, np.flatnonzero(~held)))
  validated = _part(train, np.flatnonzero(held))
  is_query = _queries(validated)
  query, gallery = _part(validated, np.flatnonzero(is_query)), _part(validated, np.flatnonzero(~is_query))
  if one_camera:  # unknown: every image of the identity is a match
    query = dataclasses.replace(query, camera=query.camera + 1)
  nothing = _part(train, np.array([], int))
  validation = dataclasses.replace(training, query=query, gallery=gallery, multi_query=nothing)
  return dataclasses.replace(training, validation=validation)


def _images_by_identity(split: Split) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
  """Yields each identity with the indices of its images, in order."""
  order = np.argsort(split.identity, kind='stable')
  identities, starts = np.unique(split.identity[order], return_index=True)
  yield from zip(identities.tolist(), np.split(order, starts[1:]), strict=True)


def _can_be_ranked(split: Split, rows: npt.NDArray[np.int64], one_camera: bool) -> bool:
  return len(rows) > 1 if one_camera else len(np.unique(split.camera[rows])) > 1


def _first_of_tracks(split: Split) -> npt.NDArray[np.int64]:
  """Returns the index of the first image of each track, in order; without tracks those of all images."""
  return np.arange(len(split)) if split.track is None else np.sort(np.unique(split.track, return_index=True)[1])


def _queries(split: Split) -> npt.NDArray[np.bool_]:
  """Returns bool[N], which images are queries: every identity has at least one, with a match in the rest."""
  singles = _first_of_tracks(split)
  chosen = np.zeros(len(split), bool)
  for _, rows in _images_by_identity(_part(split, singles)):
    _, first, counts = np.unique(split.camera[singles[rows]], return_index=True, return_counts=True)
    first = first[counts > 1] if len(first) > 1 and (counts > 1).any() else first[:1]
    chosen[singles[rows[first]]] = True
  return chosen if split.track is None else np.isin(split.track, split.track[chosen])


def _part(split: Split, rows: npt.NDArray[np.int64]) -> Split:
  track = None if split.track is None else split.track[rows]
  return Split(tuple(split.paths[i] for i in rows.tolist()), split.identity[rows], split.camera[rows], track)


def _hash(name: str) -> bytes:
  return hashlib.sha256(name.encode(errors='surrogateescape')).digest()
