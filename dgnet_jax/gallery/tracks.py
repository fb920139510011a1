"""Tracks: several photos of one person by one camera, embedded as one."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def track_members(tracks: Sequence[str | int | None]) -> list[list[int]]:
  """Returns the indices of the photos of each track, in order of its first photo; None is a track of its own."""
  members: dict[object, list[int]] = {}
  for i, track in enumerate(tracks):
    members.setdefault((i,) if track is None else track, []).append(i)
  return list(members.values())


def pool_tracks(
  features: npt.NDArray[np.float32], members: Sequence[Sequence[int]], num_pieces: int
) -> npt.NDArray[np.float32]:
  """Embeds tracks: the mean over the photos, in which each piece (half) is normalised again.

  Args:
    features: f32[N, P * D], P pieces of length 1 each.
    members: the indices of the photos of each of T tracks, at least one.
    num_pieces: P.

  Returns:
    f32[T, P * D], pieces of length 1; a track of one photo has its embedding.
  """
  pooled = np.empty((len(members), features.shape[1]), np.float32)
  for i, indices in enumerate(members):
    if len(indices) == 1:
      pooled[i] = features[indices[0]]
      continue
    pieces = features[list(indices)].mean(axis=0, dtype=np.float64).reshape(num_pieces, -1)
    length = np.linalg.norm(pieces, axis=1, keepdims=True)
    pooled[i] = (pieces / np.maximum(length, np.finfo(np.float32).tiny)).reshape(-1)
  return pooled
