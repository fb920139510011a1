"""Who is on which image, seen by which camera: the form in which every data set is used."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import logging
from typing import NamedTuple

import numpy as np

from dgnet_jax.data.layouts import SPLITS
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


JUNK = -1  # a crop without a usable person: left out of every ranking
DISTRACTOR = 0  # a person nobody asks for: stays in the gallery and never matches
NOBODY = {'junk': JUNK, 'distractor': DISTRACTOR}  # what `Image.identity` says of those that are no person
PEOPLE_ONLY = ('train', 'query')  # splits from which nobody is left out
MAX_NAMED = 5  # files named in one message; the rest are counted
MAX_DIGITS = 9  # of a number that i32 holds


class Image(NamedTuple):
  """A file as a reader finds it; identity and camera are names, `NOBODY` among the identities."""

  path: str
  identity: str
  camera: str


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """The images of one part of a data set, sorted by path.

  paths: of N files, ready to open. identity: i32[N], JUNK and DISTRACTOR included. camera: i32[N].
  """

  paths: tuple[str, ...]
  identity: np.ndarray
  camera: np.ndarray

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


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetIndex:
  """A data set's images by purpose; a split that it does not have is empty.

  name: its layout. root: the folder that all paths are in, or relative to. variant: which form of the data set it is,
  '' where it has one only. identity_names and camera_names: what the files call each number.
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
    """People in the training split: the number of classes."""
    return len(self.train.class_of)

  @functools.cached_property
  def num_cameras(self) -> int:
    """Different cameras over all splits."""
    return len(np.unique(np.concatenate([split.camera for split in self.splits.values()])))


def printable(name: str) -> str:
  """`name` on one line, with escapes for what a terminal cannot show (line ends, bytes that are no text)."""
  return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in name)


def name_some(names: Sequence[str], separator: str = ', ') -> str:
  """The first few of `names` and how many more there are."""
  more = [f'and {len(names) - MAX_NAMED} more'] if len(names) > MAX_NAMED else []
  return separator.join([*map(printable, names[:MAX_NAMED]), *more])


def number_names(groups: Iterable[Iterable[str]], *, least: int = 1) -> dict[str, int]:
  """Whole numbers for names: a group's own, where all its names are different numbers; else 1, 2, ... in sorted order.

  Groups are numbered one after the other, so a later one never changes the numbers of an earlier one.

  Args:
    groups: names; one that was in an earlier group keeps its number.
    least: the smallest number that a name may stand for.
  """
  numbers: dict[str, int] = {}
  for group in groups:
    new = sorted(set(group) - numbers.keys())
    own = {name: int(name) for name in new if name.isascii() and name.isdigit() and len(name) <= MAX_DIGITS}
    taken = set(numbers.values())
    free = {number for number in own.values() if number >= least and number not in taken}
    if len(free) < len(new):
      own = {name: number for number, name in enumerate(new, max(taken, default=0) + 1)}
    numbers |= own
  return numbers


def _people_only(root: str, split: str, images: Sequence[Image]) -> Sequence[Image]:
  """Leaves junk and distractors out, and says so."""
  nobody = [image.path for image in images if image.identity in NOBODY]
  if nobody:
    logger.warning(f'{root}, {split}: {len(nobody)} images of identity -1 or 0 left out ({name_some(nobody)})')
  people = [image for image in images if image.identity not in NOBODY]
  if images and not people:
    raise UserError(f'{root}, {split}: no images of a known person in it')
  return people


def make_index(name: str, root: str, images: Mapping[str, Sequence[Image]], *, variant: str = '') -> DatasetIndex:
  """Numbers the names of identities and cameras (`number_names`), and sorts every split by path.

  Args:
    name: of the layout.
    root: of the data set.
    images: of every split that there is.
    variant: of the data set.

  Returns:
    The index. Junk and distractors stay in gallery and multi_query; from train and query they are left out. The numbers
    of training people do not depend on who is in the test splits.

  Raises:
    UserError: a split has images, but of nobody who is known.
  """
  kept = {split: list(images.get(split, ())) for split in SPLITS}
  for split in PEOPLE_ONLY:
    kept[split] = list(_people_only(root, split, kept[split]))
  groups = kept['train'], [image for split in SPLITS[1:] for image in kept[split]]
  identities = number_names([p.identity for p in group if p.identity not in NOBODY] for group in groups)
  cameras = number_names(([p.camera for p in group] for group in groups), least=0)
  numbers = identities | NOBODY
  splits = {}
  for split, found in kept.items():
    found.sort()
    splits[split] = Split(
      paths=tuple(p.path for p in found),
      identity=np.array([numbers[p.identity] for p in found], np.int32),
      camera=np.array([cameras[p.camera] for p in found], np.int32),
    )
  return DatasetIndex(
    name=name,
    root=root,
    **splits,
    identity_names={number: identity for identity, number in numbers.items()},
    camera_names={number: camera for camera, number in cameras.items()},
    variant=variant,
  )
