"""Sets of images to compare: a folder of them, splits of a data set, or what a run has generated."""

from collections.abc import Sequence
import csv
import dataclasses
import logging
import os
import pathlib
import re
from typing import Any

import numpy as np

from dgnet_jax.data.images import for_each_file, read_native
from dgnet_jax.data.index import DISTRACTOR, JUNK, name_some, number_names, printable
from dgnet_jax.data.layouts import LAYOUTS, SPLITS
from dgnet_jax.data.readers.listing import list_folders, list_images
from dgnet_jax.data.registry import read_layout, recognise
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


MANIFEST = 'manifest.csv'
# Columns with an image's path and with whose clothes are worn, hence who it is: of sheets, and of sets in bulk.
COLUMNS = (('file', 'appearance_identity'), ('path', 'identity'))
UNFINISHED = ('sheet_*.png', 'plan.json')  # what else --mode=generate writes before the manifest


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
  """Images, and what is known of them.

  title: for people. paths: of N images, sorted. names: what each is called within the set, without extension, '/'
  between folders. identity: i64[N], None where nobody knows who is on them; DISTRACTOR where that is so for an image.
  sizes_hw: i64[N, 2], pixels of the files.
  """

  title: str
  paths: tuple[str, ...]
  names: tuple[str, ...]
  identity: np.ndarray | None
  sizes_hw: np.ndarray

  def __len__(self) -> int:
    return len(self.paths)

  @property
  def num_people(self) -> int:
    """Different people; 0 where they are not known."""
    return 0 if self.identity is None else len(np.unique(self.identity[self.identity > DISTRACTOR]))

  @property
  def size_hw(self) -> tuple[int, int] | None:
    """Of all images; None where they differ."""
    height, width = self.sizes_hw[0].tolist()
    return (height, width) if (self.sizes_hw == self.sizes_hw[0]).all() else None

  @property
  def size_text(self) -> str:
    """Height and width for people."""
    if self.size_hw:
      return '{}x{}'.format(*self.size_hw)
    least, most = self.sizes_hw.min(axis=0), self.sizes_hw.max(axis=0)
    return f'{least[0]}x{least[1]} to {most[0]}x{most[1]}'


def _made(
  title: str, root: str | pathlib.Path, paths: Sequence[str], identity: np.ndarray | None, threads: int
) -> ImageSet:
  """A set whose every image could be decoded.

  Raises:
    UserError: names those that could not.
  """
  sizes = np.zeros((len(paths), 2), np.int64)

  def decode(i: int) -> None:
    sizes[i] = read_native(paths[i]).shape[:2]

  for_each_file(decode, paths, threads=threads, what=f'checking {title}')
  names = (pathlib.PurePath(os.path.relpath(os.path.splitext(path)[0], root)).as_posix() for path in paths)
  return ImageSet(title, tuple(paths), tuple(names), identity, sizes)


def _listed(folder: pathlib.Path) -> list[str]:
  """All images in a folder and those in it, sorted."""
  found = [os.path.join(folder, name) for name in list_images(folder)[0]]
  for name in list_folders(folder)[0]:
    found += _listed(folder / name)
  return sorted(found)


def _identities(folder: pathlib.Path, paths: Sequence[str], pattern: str) -> np.ndarray | None:
  """Numbers for the group `identity` of the pattern in each image's path within the folder; None without a pattern.

  Raises:
    UserError: the pattern is none, or some path does not have it.
  """
  if not pattern:
    return None
  try:
    compiled = re.compile(pattern)
  except re.error as error:
    raise UserError(f'{pattern!r} is no regular expression: {error}') from error
  if 'identity' not in compiled.groupindex:
    raise UserError(f'{pattern!r} has no group (?P<identity>...)')
  within = [pathlib.PurePath(os.path.relpath(path, folder)).as_posix() for path in paths]
  matches = [compiled.search(path) for path in within]
  wrong = [path for path, match in zip(within, matches, strict=True) if match is None or not match['identity']]
  if wrong:
    raise UserError(f'{folder}: {len(wrong)} of {len(paths)} images lack {pattern!r}: {name_some(wrong)}')
  names = [match['identity'] for match in matches if match is not None]
  numbers = number_names([names])
  return np.array([numbers[name] for name in names])


def _read_folder(folder: pathlib.Path, pattern: str, threads: int) -> ImageSet:
  if (folder / 'images').is_dir() and any(any(folder.glob(pattern)) for pattern in UNFINISHED):
    raise UserError(f'{folder}: {MANIFEST} is missing, so --mode=generate did not end; run it again')
  paths = _listed(folder)
  if not paths:
    raise UserError(f'{folder}: no images in it')
  return _made(str(folder), folder, paths, _identities(folder, paths, pattern), threads)


def _read_generated(folder: pathlib.Path, threads: int) -> ImageSet:
  """The images of a manifest; `names` leave the folder out that all are in.

  Raises:
    UserError: the manifest is damaged or images are missing.
  """
  path = folder / MANIFEST
  try:
    with path.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
      reader = csv.DictReader(file)
      known = [names for names in COLUMNS if set(names) <= set(reader.fieldnames or ())]
      rows = sorted(tuple(row[name] or '' for name in known[0]) for row in reader) if known else []
  except (OSError, csv.Error) as error:
    raise UserError(f'{path}: cannot be read ({error})') from error
  if not known:
    wanted = ' or '.join(', '.join(names) for names in COLUMNS)
    raise UserError(f'{path}: no manifest of --mode=generate, which has the columns {wanted}')
  if not rows or not all(name and identity for name, identity in rows):
    raise UserError(f'{path}: {"rows without an image or a person" if rows else "no images in it"}')
  numbers = number_names([[identity for _, identity in rows]])
  paths = [os.path.join(folder, name) for name, _ in rows]
  base = os.path.commonpath([os.path.dirname(path) for path in paths])
  return _made(str(folder), base, paths, np.array([numbers[identity] for _, identity in rows]), threads)


def _read_splits(root: str, layout: str, splits: Sequence[str], fields: dict[str, Any], threads: int) -> ImageSet:
  index = read_layout(root, layout, **fields)
  there = [name for name in SPLITS if len(index.splits[name])]
  if not splits or not set(splits) <= set(there):
    wrong = ', '.join(name for name in splits if name not in there)
    what = f'no images of {wrong}' if wrong else 'a data set; say which part'
    raise UserError(f'{root}: {what}: {", ".join(f"{root}:{name}" for name in there)}')
  paths = [path for name in splits for path in index.splits[name].paths]
  identity = np.concatenate([index.splits[name].identity for name in splits]).astype(np.int64)
  title = f'{LAYOUTS[index.name].title}, {index.root}, {"+".join(splits)}'
  kept = np.flatnonzero(identity != JUNK)
  if len(kept) < len(paths):
    logger.info(f'{title}: {len(paths) - len(kept)} images of junk left out')
  return _made(title, index.root, [paths[i] for i in kept], identity[kept], threads)


def _parts(text: str) -> tuple[str, str, tuple[str, ...]]:
  """Layout ('' where none is named), root and splits of [LAYOUT=]ROOT[:SPLIT[+SPLIT...]]."""
  if os.path.exists(text):
    return '', text, ()
  name, equals, rest = text.partition('=')
  layout, root = (name, rest) if equals and name in LAYOUTS else ('', text)
  head, colon, tail = root.rpartition(':')
  splits = tuple(dict.fromkeys(tail.split('+')))
  return (layout, head, splits) if colon and head and set(splits) <= set(SPLITS) else (layout, root, ())


def read_image_set(
  text: str, *, identity_pattern: str = '', fields: dict[str, Any] | None = None, threads: int = os.cpu_count() or 1
) -> ImageSet:
  """Finds out what `text` names and decodes every image once, so that a damaged one is told before long work.

  Args:
    text: a folder of images; one of `--mode=generate`, with its manifest; or [LAYOUT=]ROOT:SPLIT[+SPLIT...] of a data
      set, whose junk is left out.
    identity_pattern: a regular expression with a group `identity`, searched in paths of plain folders; '' knows nobody.
    fields: of `config.data`, for data sets.
    threads: files at a time.

  Raises:
    UserError: there is no such thing, no images in it, or some cannot be read; names them.
  """
  layout, root, splits = _parts(text)
  path = pathlib.Path(root)
  if not path.exists():
    raise UserError(f'{printable(root)}: no such folder')
  if not layout and not splits and (path / MANIFEST).is_file():
    return _read_generated(path, threads)
  if layout or splits or path.is_file() or recognise(path):
    return _read_splits(root, layout, splits, fields or {}, threads)
  return _read_folder(path, identity_pattern, threads)


def partners(first: ImageSet, second: ImageSet) -> tuple[np.ndarray, np.ndarray]:
  """Places of the images that both sets have under the same name, but for the extension.

  Returns:
    i64[M], i64[M], into each.

  Raises:
    UserError: a set has a name twice, or they have none in common.
  """
  for one in (first, second):
    names, counts = np.unique(one.names, return_counts=True)
    twice = names[counts > 1].tolist()
    if twice:
      raise UserError(f'{one.title}: {len(twice)} names are there with several extensions: {name_some(twice)}')
  common, places, others = np.intersect1d(first.names, second.names, return_indices=True)
  if not len(common):
    raise UserError(
      f'no file names in common: {name_some(first.names[:2])} in {first.title}, '
      f'{name_some(second.names[:2])} in {second.title}'
    )
  return places, others
