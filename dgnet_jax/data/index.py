"""Readers of data-set folders: who is on which picture, seen by which camera."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import os
import pathlib
import re
from typing import Any

import numpy as np

from dgnet_jax.config import UserError

JUNK = -1  # a crop without a usable person: left out of every ranking
DISTRACTOR = 0  # a person nobody asks for: stays in the gallery and never matches

MARKET1501_NAME = re.compile(r'(?P<identity>-?\d+)_c(?P<camera>\d)s\d_\d+_\d+\.jpg', re.IGNORECASE)
MARKET1501_FOLDERS = {
  'train': 'bounding_box_train',
  'query': 'query',
  'gallery': 'bounding_box_test',
  'multi_query': 'gt_bbox',
}
OPTIONAL_SPLITS = ('multi_query',)
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.ppm')
MAX_NAMED = 5  # files named in one message; the rest are counted

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """The pictures of one part of a data set, sorted by path.

  paths: of N files, ready to open. identity: i32[N], as the files name it (JUNK and DISTRACTOR included). camera:
  i32[N], as the files name it.
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
    """i32[N], the class of each picture."""
    return np.unique(self.identity, return_inverse=True)[1].astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetIndex:
  """A data set's pictures by purpose; `multi_query` is empty where the data set has none."""

  name: str
  root: str
  train: Split
  query: Split
  gallery: Split
  multi_query: Split

  @property
  def splits(self) -> Mapping[str, Split]:
    """The four splits by name."""
    return {name: getattr(self, name) for name in MARKET1501_FOLDERS}

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


def name_some(names: list[str], separator: str = ', ') -> str:
  """The first few of `names` and how many more there are."""
  more = [f'and {len(names) - MAX_NAMED} more'] if len(names) > MAX_NAMED else []
  return separator.join(names[:MAX_NAMED] + more)


def _is_picture(name: str) -> bool:
  return not name.startswith('.') and name.lower().endswith(IMAGE_SUFFIXES)


def _list_pictures(folder: pathlib.Path, pattern: re.Pattern[str], log: Log) -> list[re.Match[str]]:
  """Matches of every picture's name in `folder`, sorted by name; what is no picture is counted and skipped.

  Raises:
    UserError: pictures whose name does not match `pattern`; names them.
  """
  with os.scandir(folder) as entries:
    files = sorted((entry.name, entry.is_file()) for entry in entries)
  pictures = [name for name, is_file in files if is_file and _is_picture(name)]
  stray = [name for name, is_file in files if not (is_file and _is_picture(name))]
  if stray:
    log(f'warning: {folder}: {len(stray)} entries that are no pictures skipped ({name_some(stray)})')
  matches = [(name, pattern.fullmatch(name)) for name in pictures]
  unknown = [name for name, match in matches if match is None]
  if unknown:
    raise UserError(
      f'{folder}: {len(unknown)} of {len(pictures)} file names do not match {pattern.pattern}: {name_some(unknown)}. '
      'Rename or remove them.'
    )
  return [match for _, match in matches if match is not None]


def _read_split(folder: pathlib.Path, pattern: re.Pattern[str], people_only: bool, log: Log) -> Split:
  """One folder as a Split; with `people_only` junk and distractors are counted and left out.

  Raises:
    UserError: a name does not match, or nothing is left; names the folder and the files.
  """
  matches = _list_pictures(folder, pattern, log)
  nobody = [m.string for m in matches if people_only and int(m['identity']) in (JUNK, DISTRACTOR)]
  if nobody:
    log(f'warning: {folder}: {len(nobody)} pictures of identity {JUNK} or {DISTRACTOR} left out ({name_some(nobody)})')
    matches = [m for m in matches if int(m['identity']) not in (JUNK, DISTRACTOR)]
  if not matches:
    raise UserError(f'{folder}: no pictures{" of a known person" if nobody else ""} in it')
  negative = [m.string for m in matches if int(m['identity']) < JUNK]
  if negative:
    raise UserError(f'{folder}: identities below {JUNK}: {name_some(negative)}')
  return Split(
    paths=tuple(os.path.join(folder, m.string) for m in matches),
    identity=np.array([int(m['identity']) for m in matches], np.int32),
    camera=np.array([int(m['camera']) for m in matches], np.int32),
  )


def _missing_folder_message(root: pathlib.Path, missing: list[str]) -> str:
  """What is missing, and where the data set may be instead."""
  wanted = [folder for name, folder in MARKET1501_FOLDERS.items() if name not in OPTIONAL_SPLITS]
  message = f'{root}: no folder {", ".join(missing)}; Market-1501 has {", ".join(wanted)}'
  if not root.is_dir():
    return f'{root}: no such folder (data.root)'
  candidates = [root.parent, *sorted(path for path in root.iterdir() if path.is_dir())]
  nearby = [str(path) for path in candidates if all((path / folder).is_dir() for folder in wanted)]
  return f'{message}. Did you mean data.root={nearby[0]}?' if nearby else message


def read_market1501(root: str | pathlib.Path, *, name: str = 'market1501', log: Log = print) -> DatasetIndex:
  """Reads a folder in Market-1501's layout; opens no picture.

  Args:
    root: holds bounding_box_train, query, bounding_box_test and, for multi-query, gt_bbox.
    name: of the data set, for people.
    log: takes warnings about what was skipped.

  Returns:
    The index. Junk and distractors stay in the gallery; from training and query they are left out.

  Raises:
    UserError: a folder is missing, a split is empty, or a picture's name does not match; names it.
  """
  root = pathlib.Path(root)
  present = {split: root / folder for split, folder in MARKET1501_FOLDERS.items() if (root / folder).is_dir()}
  missing = [f for split, f in MARKET1501_FOLDERS.items() if split not in present and split not in OPTIONAL_SPLITS]
  if missing:
    raise UserError(_missing_folder_message(root, missing))
  nothing = Split((), np.zeros(0, np.int32), np.zeros(0, np.int32))
  splits = dict.fromkeys(MARKET1501_FOLDERS, nothing)
  for split, folder in present.items():
    splits[split] = _read_split(folder, MARKET1501_NAME, split in ('train', 'query'), log)
  return DatasetIndex(name=name, root=str(root), **splits)


def read_dataset(data_config: Any, root: str | pathlib.Path = '', *, log: Log = print) -> DatasetIndex:
  """Reads the data set of `config.data`.

  Args:
    data_config: layout and root are read.
    root: the folder, where it is not `data_config.root`.
    log: takes warnings about what was skipped.

  Raises:
    UserError: the data set is missing, incomplete or misnamed; names the folder or file.
  """
  # The built-in pedestrians come in Market-1501's own folders and names.
  return read_market1501(root or data_config.root, name=data_config.layout, log=log)
