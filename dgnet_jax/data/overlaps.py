"""What makes scores better or worse than they are: people and images in two splits, and one image of two identities."""

from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import hashlib
import itertools
import os

import numpy as np

from dgnet_jax.data.images import read_encoded
from dgnet_jax.data.index import DISTRACTOR, JUNK, DatasetIndex, Split, summarize
from dgnet_jax.errors import UserError

DIGEST_BYTES = 16
# Splits that may share images: the hand-drawn boxes of multi_query may include the query's own box.
MAY_SHARE = {'query', 'multi_query'}


def digest(encoded: bytes) -> bytes:
  """Returns a hash of the content of a file."""
  return hashlib.blake2b(encoded, digest_size=DIGEST_BYTES).digest()


def digests(index: DatasetIndex, *, threads: int) -> list[bytes | None]:
  """Reads every file and returns the hash of its content, in the order of the splits; None if it is unreadable."""

  def of(path: str) -> bytes | None:
    try:
      return digest(read_encoded(path))
    except UserError:  # reported by those who need the image
      return None

  paths = [path for split in index.splits.values() for path in split.paths]
  with ThreadPoolExecutor(threads) as pool:
    return list(pool.map(of, paths))


def quick_problems(index: DatasetIndex) -> list[str]:
  """Returns the problems that labels and paths alone show: people in two splits, and files that are listed twice."""
  paths = [os.path.normpath(path) for split in index.splits.values() for path in split.paths]
  return [*identity_problems(index), *image_problems(index, paths)]


def identity_problems(index: DatasetIndex) -> list[str]:
  """Returns the problem of people who are both trained on and tested on. Query and gallery share theirs by design."""
  tested = np.concatenate([split.identity for name, split in index.splits.items() if name != 'train'])
  both = np.intersect1d(index.train.identity, tested[tested > DISTRACTOR])
  if not len(both):
    return []
  names = summarize([index.identity_names[int(identity)] for identity in both])
  return [
    f'{len(both)} identities are in train and in the test splits ({names}); if these are the same people, the '
    'evaluation tests people who were trained on'
  ]


def image_problems(index: DatasetIndex, keys: Sequence[Hashable | None]) -> list[str]:
  """Returns the problems of images that occur more than once: in splits that must not share it, or as two identities.

  Two splits may share an image where it does no harm: a gallery image of a query's identity and camera is left out of
  the ranking. A copy among the junk does no harm either.

  Args:
    index: index of the data set.
    keys: of each image, in the order of the splits, what is equal for copies; None for an unknown image.
  """
  splits = [name for name, split in index.splits.items() for _ in split.paths]
  paths = [path for split in index.splits.values() for path in split.paths]
  identity, camera = (
    np.concatenate([getattr(split, name) for split in index.splits.values()]) for name in ('identity', 'camera')
  )

  def named(images: Sequence[int]) -> str:
    return ' = '.join(dict.fromkeys(os.path.relpath(paths[i], index.root) for i in images))

  leaks: dict[tuple[str, str], list[str]] = {}
  conflicts = []
  for group in copies(keys):
    by_split: dict[str, list[int]] = {}
    for i in group:
      by_split.setdefault(splits[i], []).append(i)
    for first, second in itertools.combinations(by_split, 2):
      both = by_split[first] + by_split[second]
      harmless = first != 'train' and len(np.unique(np.stack([identity[both], camera[both]]), axis=1).T) == 1
      if {first, second} != MAY_SHARE and not harmless:
        leaks.setdefault((first, second), []).append(named([by_split[first][0], by_split[second][0]]))
    one_of_each = {int(identity[i]): i for i in reversed(group) if identity[i] != JUNK}
    if len(one_of_each) > 1:
      people = ' and '.join(index.identity_names[number] for number in sorted(one_of_each))
      conflicts.append(f'{named(sorted(one_of_each.values()))}: {people}')
  problems = [
    f'{first} and {second} share {len(pairs)} images: {summarize(pairs)}' for (first, second), pairs in leaks.items()
  ]
  if conflicts:
    problems.append(f'{len(conflicts)} images have two identities: {summarize(conflicts, "; ")}')
  return problems


def copies(keys: Sequence[Hashable | None]) -> list[list[int]]:
  """Returns the indices of images with the same key, for every key that occurs more than once."""
  groups: dict[Hashable, list[int]] = {}
  for i, key in enumerate(keys):
    if key is not None:
      groups.setdefault(key, []).append(i)
  return [group for group in groups.values() if len(group) > 1]


def without_training(index: DatasetIndex) -> DatasetIndex:
  """Returns the test splits alone, for networks that were trained on other data."""
  nothing = np.zeros(0, np.int32)
  return dataclasses.replace(index, train=Split((), nothing, nothing))
