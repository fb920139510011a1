"""Checks of a data set: files, identities, cameras, duplicates, and counts compared with the published ones."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import os

import numpy as np
from PIL import Image

from dgnet_jax.data.images import decode_rgb, find_problems, read_encoded
from dgnet_jax.data.index import DISTRACTOR, JUNK, DatasetIndex, Split, printable, summarize
from dgnet_jax.data.layouts import LAYOUTS, Count
from dgnet_jax.data.matches import has_match, why_nothing_matches
from dgnet_jax.data.overlaps import DIGEST_BYTES, copies, digest, identity_problems, image_problems
from dgnet_jax.errors import UserError

SHEET_IDENTITIES = 3  # rows of the contact sheet for each split
SHEET_IMAGES = 6  # images in a row
SHEET_HEIGHT = 128  # pixels of an image
MAX_ASPECT = 3.0  # width by height of an image on the sheet, at most
MIN_ASPECT = 0.25
LABEL_LENGTH = 24
WHITE = (255, 255, 255)


@dataclasses.dataclass(frozen=True)
class Scan:
  """The N files of a data set, in the order of its splits.

  Attributes:
    paths: N paths.
    split: u8[N], index into `DatasetIndex.splits`.
    size_hw: i32[N, 2], pixels; 0 for bad files.
    digest: u8[N, DIGEST_BYTES], hash of the content; 0 for unreadable files.
    bad: error message of each bad file, by its index in `paths`.
  """

  paths: tuple[str, ...]
  split: np.ndarray
  size_hw: np.ndarray
  digest: np.ndarray
  bad: Mapping[int, str]


@dataclasses.dataclass(frozen=True)
class DatasetReport:
  """Lines to print.

  Attributes:
    table: counts and sizes.
    problems: what is broken and should be fixed.
    differences: counts that are not the published ones, of data some of whose counts are.
    notes: what is good to know.
  """

  table: Sequence[str]
  problems: Sequence[str]
  differences: Sequence[str]
  notes: Sequence[str]


def scan_files(index: DatasetIndex, *, threads: int) -> Scan:
  """Reads and decodes every file once.

  Args:
    index: index of the data set.
    threads: number of files processed at a time.
  """
  paths = tuple(path for split in index.splits.values() for path in split.paths)
  size_hw, content = np.zeros((len(paths), 2), np.int32), np.zeros((len(paths), DIGEST_BYTES), np.uint8)

  def scan(i: int) -> None:
    encoded = read_encoded(paths[i])
    content[i] = np.frombuffer(digest(encoded), np.uint8)
    if not encoded:
      raise UserError(f'{printable(paths[i])}: empty file')
    size_hw[i] = decode_rgb(encoded, paths[i]).size[::-1]

  bad = find_problems(scan, paths, threads=threads, action='scanning')
  lengths = [len(split) for split in index.splits.values()]
  return Scan(paths, np.repeat(np.arange(len(lengths), dtype=np.uint8), lengths), size_hw, content, bad)


def _identified(split: Split) -> np.ndarray:
  """Returns the indices i64[M] of images that are neither junk nor distractors."""
  return np.flatnonzero(split.identity > DISTRACTOR)


def _marked(count: int, published: int | None, verified: bool = True) -> str:
  """Formats a published number for the table: with '?' if it is unverified, with '*' if it differs from `count`."""
  if published is None:
    return ''
  return f'{published:,}{"" if verified else "?"}{"" if count == published else "*"}'


def _count_rows(index: DatasetIndex) -> Iterator[tuple[str, int, int, int, Count | None]]:
  """Yields label, images, identities, cameras and the published size of every split that exists."""
  layout = LAYOUTS[index.name]
  for name, split in index.splits.items():
    published = layout.count(name, index.variant)
    if len(split):
      identities = np.unique(split.identity[_identified(split)])
      yield name, len(split), len(identities), len(np.unique(split.camera)), published
      ranked = np.flatnonzero(split.identity != JUNK)
      published = layout.count(f'{name}, without junk')
      if len(ranked) < len(split) or published:
        cameras = np.unique(split.camera[ranked])
        yield f'{name}, without junk', len(ranked), len(identities), len(cameras), published


def _counts(index: DatasetIndex) -> tuple[list[str], list[str], bool]:
  """Returns the table of counts, the differences from published, verified ones, and whether any count is published."""
  layout = LAYOUTS[index.name]
  lines = [f'{"":<22}{"images":>10}{"published":>11}{"identities":>12}{"published":>11}{"cameras":>9}']
  differences, any_equal = [], False
  for label, images, identities, cameras, published in _count_rows(index):
    marks = ('', '')
    if published is not None:
      verified = published.verified
      marks = _marked(images, published.images, verified), _marked(identities, published.identities, verified)
      pairs = ((images, published.images, 'images'), (identities, published.identities, 'identities'))
      for count, expected, unit in pairs:
        any_equal |= count == expected
        if verified and expected not in (None, count):
          differences.append(f'{label}: {count:,} {unit}, {expected:,} were published')
    lines.append(f'{label:<22}{images:>10,}{marks[0]:>11}{identities:>12,}{marks[1]:>11}{cameras:>9}')
  lines += [f'{name:<22}{"missing":>10}' for name in layout.folders if not len(index.splits[name])]
  lines.append(f'{"cameras in total":<22}{index.num_cameras:>10}{_marked(index.num_cameras, layout.num_cameras):>11}')
  complete = all(len(index.splits[name]) for name in layout.counts if name in index.splits)
  if complete and layout.num_cameras not in (None, index.num_cameras):
    differences.append(f'{index.num_cameras} cameras, {layout.num_cameras} were published')
  legend = [text for sign, text in (('*', '* differs'), ('?', '? unverified')) if any(sign in line for line in lines)]
  return lines + legend, differences, any_equal


def _names(index: DatasetIndex, identities: np.ndarray) -> str:
  return summarize([index.identity_names[int(identity)] for identity in identities])


def _relative(index: DatasetIndex, paths: Sequence[str]) -> str:
  return summarize([os.path.relpath(path, index.root) for path in paths])


def _check_training(index: DatasetIndex) -> tuple[list[str], list[str]]:
  """Returns problems and notes about the images and cameras of each training identity."""
  problems, notes = [], []
  train = index.train
  identities, counts = np.unique(train.identity, return_counts=True)
  single = identities[counts == 1]
  if len(single):
    notes.append(
      f'train: {len(single)} identities with a single image, which is its own positive ({_names(index, single)})'
    )
  seen = np.unique(np.stack([train.identity, train.camera], axis=1), axis=0)[:, 0]
  identities, cameras = np.unique(seen, return_counts=True)
  one_camera = identities[cameras == 1]
  if len(one_camera):
    notes.append(f'train: {len(one_camera)} identities seen by a single camera ({_names(index, one_camera)})')
  if len(train) and len(identities) == 1:
    problems.append('train: only one identity; re-identification needs at least two')
  return problems, notes


def _check_queries(index: DatasetIndex) -> tuple[list[str], list[str]]:
  """Returns problems and notes about queries without a match."""
  query, gallery = index.query, index.gallery
  if not len(query) or not len(gallery):
    note = 'query or gallery is missing: the data set can be used for training but not for evaluation'
    return [], [note] if len(index.train) else []
  problem = why_nothing_matches(index)
  if problem:
    return [problem], []
  unmatched = [query.paths[i] for i in np.flatnonzero(~has_match(query, gallery))]
  if not unmatched:
    return [], []
  return [f'query: {len(unmatched)} without a gallery image by another camera ({_relative(index, unmatched)})'], []


def _check_overlaps(index: DatasetIndex, scan: Scan) -> tuple[list[str], list[str]]:
  """Returns problems (people and images in two splits, images of two identities) and notes (copies within a split)."""
  keys = [None if i in scan.bad else row.tobytes() for i, row in enumerate(scan.digest)]
  within = sum(len(group) - len(np.unique(scan.split[group])) for group in copies(keys))
  problems = [*identity_problems(index), *image_problems(index, keys)]
  return problems, [f'{within} files are copies of another file in their split'] if within else []


def _sizes(scan: Scan) -> list[str]:
  """Returns a line on the sizes of the images."""
  sizes = scan.size_hw[scan.size_hw.all(axis=1)]
  if not len(sizes):
    return []
  low, middle, high = (
    f'{int(h)}x{int(w)}' for h, w in (sizes.min(axis=0), np.median(sizes, axis=0), sizes.max(axis=0))
  )
  return [
    f'height x width: minimum {low}, median {middle}, maximum {high} (each axis on its own), '
    f'{len(np.unique(sizes, axis=0))} different sizes'
  ]


def make_report(index: DatasetIndex, scan: Scan) -> DatasetReport:
  """Runs all checks."""
  table, differences, any_equal = _counts(index)
  training, training_notes = _check_training(index)
  queries, query_notes = _check_queries(index)
  overlaps, copies_within = _check_overlaps(index, scan)
  problems, notes = [*scan.bad.values(), *overlaps, *training, *queries], [*training_notes, *query_notes]
  if differences and not any_equal:
    title = LAYOUTS[index.name].title
    notes.append(f'no count is that of {title}: taken for other images with names like those of {title}')
    differences = []
  return DatasetReport(table + _sizes(scan), problems, differences, [*notes, *copies_within])


def contact_sheet_rows(index: DatasetIndex, scan: Scan) -> Mapping[str, np.ndarray]:
  """Reads images for a contact sheet: a row for each of a few identities of every split, in order of path.

  Returns:
    u8[N, H, W, 3] for each label, all of one shape; short rows end in white images.

  Raises:
    UserError: no image of an identity can be decoded.
  """
  bad = {scan.paths[i] for i in scan.bad}
  rows: dict[str, list[str]] = {}
  for name, split in index.splits.items():
    good = [i for i in _identified(split).tolist() if split.paths[i] not in bad]
    identities = np.unique(split.identity[good])
    spread = np.unique(np.linspace(0, len(identities) - 1, SHEET_IDENTITIES).round().astype(int))
    for identity in identities[spread] if len(identities) else []:
      label = f'{name} {printable(index.identity_names[int(identity)])[:LABEL_LENGTH]}'
      rows[label] = [split.paths[i] for i in good if split.identity[i] == identity][:SHEET_IMAGES]
  if not rows:
    raise UserError(f'{index.root}: no image can be shown')
  sizes = scan.size_hw[scan.size_hw.all(axis=1)]
  aspect = float(np.clip(np.median(sizes[:, 1] / sizes[:, 0]), MIN_ASPECT, MAX_ASPECT))
  size_hw = SHEET_HEIGHT, round(SHEET_HEIGHT * aspect)
  columns = max(map(len, rows.values()))
  blank = np.full((columns, *size_hw, 3), WHITE, np.uint8)
  images = {label: np.stack([_fitted(path, size_hw) for path in paths]) for label, paths in rows.items()}
  return {label: np.concatenate([row, blank])[:columns] for label, row in images.items()}


def _fitted(path: str, size_hw: tuple[int, int]) -> np.ndarray:
  """Reads an image and fits it on white without distortion or cropping, u8[H, W, 3]."""
  image = decode_rgb(read_encoded(path), path)
  height, width = size_hw
  scale = min(height / image.height, width / image.width)
  resized = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
  canvas = Image.new('RGB', (width, height), WHITE)
  canvas.paste(resized, ((width - resized.width) // 2, (height - resized.height) // 2))
  return np.asarray(canvas)
