"""Labelled images by split: the form in which every data set is used."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import logging
from typing import Any, NamedTuple

import numpy as np

from dgnet_jax.data.layouts import SPLITS
from dgnet_jax.errors import UserError
from dgnet_jax.utils.text import printable as printable

logger = logging.getLogger(__name__)


JUNK = -1  # a crop without a usable person: excluded from every ranking
DISTRACTOR = 0  # a person who is in no query: stays in the gallery and never matches
UNIDENTIFIED = {'junk': JUNK, 'distractor': DISTRACTOR}  # values of `LabeledImage.identity` that are not identities
IDENTIFIED_SPLITS = ('train', 'query')  # splits from which unidentified images are dropped
MAX_LISTED = 5  # names listed in one message; the rest are counted
MAX_DIGITS = 9  # of a number that fits into an i32


class LabeledImage(NamedTuple):
  """An image file as a reader finds it. Identity and camera are names; the identity may be one of `UNIDENTIFIED`.

  `track` is the name of the track that the image is of, in data sets of tracks; otherwise ''.
  """

  path: str
  identity: str
  camera: str
  track: str = ''


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """The images of one split, sorted by path.

  Attributes:
    paths: N paths, ready to open.
    identity: i32[N], including JUNK and DISTRACTOR.
    camera: i32[N].
    track: i32[N], number of the track that each image is of; None in a data set without tracks.
  """

  paths: tuple[str, ...]
  identity: np.ndarray
  camera: np.ndarray
  track: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.paths)

  @functools.cached_property
  def class_of(self) -> Mapping[int, int]:
    """The class in [0, K) of every identity, in ascending order of identity."""
    return {int(identity): i for i, identity in enumerate(np.unique(self.identity))}

  @functools.cached_property
  def classes(self) -> np.ndarray:
    """i32[N], the class of each image."""
    return np.unique(self.identity, return_inverse=True)[1].astype(np.int32)

  def one_per_identity(self, count: int | None = None) -> np.ndarray:
    """Chooses one image of each of `count` identities, junk and distractors excluded, always the same ones.

    Args:
      count: at most this many identities, evenly spread over the sorted ones; None takes all.

    Returns:
      i64[at most count], indices into the split, in ascending order of identity.
    """
    identities, first = np.unique(self.identity, return_index=True)
    first = first[identities > DISTRACTOR]
    if count is None or count >= len(first):
      return first
    chosen: np.ndarray = first[np.linspace(0, len(first) - 1, count).round().astype(int)]
    return chosen


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetIndex:
  """All images of a data set; a split that it lacks is empty.

  Attributes:
    name: layout of the data set.
    root: folder that contains all images, or that their paths are relative to.
    train, query, gallery, multi_query: the splits.
    identity_names: name in the files of each identity number.
    camera_names: name in the files of each camera number.
    variant: form of the data set; '' if it has only one.
    validation: the same training split, with identities that are held out from it as query and gallery
      (`data.holdout`); None if none are.
  """

  name: str
  root: str
  train: Split
  query: Split
  gallery: Split
  multi_query: Split
  identity_names: Mapping[int, str] = dataclasses.field(default_factory=dict)
  camera_names: Mapping[int, str] = dataclasses.field(default_factory=dict)
  variant: str = ''
  validation: 'DatasetIndex | None' = None

  @property
  def splits(self) -> Mapping[str, Split]:
    """The four splits by name."""
    return {name: getattr(self, name) for name in SPLITS}

  @property
  def class_of(self) -> Mapping[int, int]:
    """The class in [0, num_identities) of every training identity."""
    return self.train.class_of

  @functools.cached_property
  def num_identities(self) -> int:
    """Number of training identities, which is the number of classes."""
    return len(self.train.class_of)

  @functools.cached_property
  def num_cameras(self) -> int:
    """Number of different cameras over all splits."""
    return len(np.unique(np.concatenate([split.camera for split in self.splits.values()])))


def summarize(names: Sequence[str], separator: str = ', ') -> str:
  """Returns the first few of `names` and the number of the others."""
  more = [f'and {len(names) - MAX_LISTED} more'] if len(names) > MAX_LISTED else []
  return separator.join([*map(printable, names[:MAX_LISTED]), *more])


def assign_numbers(groups: Iterable[Iterable[str]], *, minimum: int = 1) -> dict[str, int]:
  """Assigns a unique number to every name.

  A group whose names are all distinct integers keeps them; the names of any other group are numbered in sorted order.
  Groups are numbered one after another, so a later group never changes the numbers of an earlier one.

  Args:
    groups: groups of names. A name that occurs in several groups keeps its first number.
    minimum: the smallest integer that a name may keep.
  """
  numbers: dict[str, int] = {}
  for group in groups:
    new = sorted(set(group) - numbers.keys())
    own = {name: int(name) for name in new if name.isascii() and name.isdigit() and len(name) <= MAX_DIGITS}
    used = set(numbers.values())
    usable = {number for number in own.values() if number >= minimum and number not in used}
    if len(usable) < len(new):
      own = {name: number for number, name in enumerate(new, max(used, default=0) + 1)}
    numbers |= own
  return numbers


def _identified_only(root: str, split: str, images: Sequence[LabeledImage]) -> Sequence[LabeledImage]:
  """Drops junk and distractors with a warning."""
  dropped = [image.path for image in images if image.identity in UNIDENTIFIED]
  if dropped:
    logger.warning(f'{root}, {split}: dropped {len(dropped)} images of identity -1 or 0 ({summarize(dropped)})')
  identified = [image for image in images if image.identity not in UNIDENTIFIED]
  if images and not identified:
    raise UserError(f'{root}, {split}: all images are junk or distractors')
  return identified


def _track_numbers(tracks: Sequence[str]) -> np.ndarray | None:
  """Numbers the tracks of a split, i32[N]; None if there are none."""
  return np.unique(tracks, return_inverse=True)[1].astype(np.int32) if any(tracks) else None


def make_index(
  name: str, root: str, images: Mapping[str, Sequence[LabeledImage]], *, variant: str = ''
) -> DatasetIndex:
  """Builds an index: numbers identities and cameras (`assign_numbers`) and sorts every split by path.

  Junk and distractors stay in gallery and multi_query and are dropped from train and query. The numbers of the training
  identities do not depend on the test splits.

  Args:
    name: layout of the data set.
    root: folder of the data set.
    images: the images of every split that exists.
    variant: form of the data set.

  Raises:
    UserError: train or query has images, but only junk and distractors.
  """
  kept = {split: list(images.get(split, ())) for split in SPLITS}
  for split in IDENTIFIED_SPLITS:
    kept[split] = list(_identified_only(root, split, kept[split]))
  groups = kept['train'], [image for split in SPLITS[1:] for image in kept[split]]
  identities = assign_numbers(
    [image.identity for image in group if image.identity not in UNIDENTIFIED] for group in groups
  )
  cameras = assign_numbers(([image.camera for image in group] for group in groups), minimum=0)
  identities |= UNIDENTIFIED
  splits: dict[str, Any] = {}
  for split, rows in kept.items():
    rows.sort()
    splits[split] = Split(
      paths=tuple(image.path for image in rows),
      identity=np.array([identities[image.identity] for image in rows], np.int32),
      camera=np.array([cameras[image.camera] for image in rows], np.int32),
      track=_track_numbers([image.track for image in rows]),
    )
  return DatasetIndex(
    name=name,
    root=root,
    **splits,
    identity_names={number: identity for identity, number in identities.items()},
    camera_names={number: camera for camera, number in cameras.items()},
    variant=variant,
  )
