"""What is wrong with a data set: files, people, cameras, duplicates, and counts beside the published ones."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
import io
import itertools
import os

import numpy as np
from PIL import Image

from dgnet_jax.data.image_bytes import read_contents
from dgnet_jax.data.images import decode_rgb, find_problems
from dgnet_jax.data.index import DISTRACTOR, JUNK, DatasetIndex, Split, name_some, printable
from dgnet_jax.data.layouts import LAYOUTS, Count
from dgnet_jax.errors import UserError
from dgnet_jax.plots import sheets
from dgnet_jax.plots.canvas import WHITE

DIGEST_BYTES = 16
SHEET_PEOPLE = 3  # of each split
SHEET_IMAGES = 6  # of each person
SHEET_HEIGHT = 128  # pixels of an image
LABEL_LETTERS = 24
NO_LEAK = {'query', 'multi_query'}  # hand-drawn boxes around the queries may hold a query itself


@dataclasses.dataclass(frozen=True)
class Scan:
  """What N files are, in the order of the splits.

  paths: N of them. split: u8[N], which of `DatasetIndex.splits` each is in. size_hw: i32[N, 2], pixels, 0 where a file
  is bad. digest: u8[N, DIGEST_BYTES] of the content, 0 where it could not be read. bad: place in `paths` -> what is
  wrong, which names the file.
  """

  paths: tuple[str, ...]
  split: np.ndarray
  size_hw: np.ndarray
  digest: np.ndarray
  bad: Mapping[int, str]


@dataclasses.dataclass(frozen=True)
class Report:
  """Lines for a person: `problems` should be seen to, `notes` should be known."""

  table: Sequence[str]
  problems: Sequence[str]
  notes: Sequence[str]


def scan_files(index: DatasetIndex, *, threads: int) -> Scan:
  """Reads and decodes every file once.

  Args:
    index: of the data set.
    threads: files at a time.
  """
  paths = tuple(path for split in index.splits.values() for path in split.paths)
  size_hw, digest = np.zeros((len(paths), 2), np.int32), np.zeros((len(paths), DIGEST_BYTES), np.uint8)

  def look(i: int) -> None:
    try:
      contents = read_contents(paths[i])
    except OSError as error:
      raise UserError(f'{printable(paths[i])}: unreadable ({error.strerror})') from error
    digest[i] = np.frombuffer(hashlib.blake2b(contents, digest_size=DIGEST_BYTES).digest(), np.uint8)
    if not contents:
      raise UserError(f'{printable(paths[i])}: empty file')
    size_hw[i] = decode_rgb(io.BytesIO(contents), paths[i]).size[::-1]

  bad = find_problems(look, paths, threads=threads, what='looking at')
  lengths = [len(split) for split in index.splits.values()]
  return Scan(paths, np.repeat(np.arange(len(lengths), dtype=np.uint8), lengths), size_hw, digest, bad)


def _people(split: Split) -> np.ndarray:
  """i64[N places] of images of people who are known."""
  return np.flatnonzero(split.identity > DISTRACTOR)


def _mark(found: int, published: int | None, verified: bool = True) -> str:
  """The published number for the table: '*' where it differs, '?' where it is unverified."""
  if published is None:
    return ''
  return f'{published:,}{"" if verified else "?"}{"" if found == published else "*"}'


def _count_rows(index: DatasetIndex) -> Iterator[tuple[str, int, int, int, Count | None]]:
  """Label, images, people, cameras and what was published, of every split that is there."""
  layout = LAYOUTS[index.name]
  for name, split in index.splits.items():
    published = layout.count(name, index.variant)
    if len(split):
      people = np.unique(split.identity[_people(split)])
      yield name, len(split), len(people), len(np.unique(split.camera)), published
      ranked = np.flatnonzero(split.identity != JUNK)
      published = layout.count(f'{name}, without junk')
      if len(ranked) < len(split) or published:
        yield f'{name}, without junk', len(ranked), len(people), len(np.unique(split.camera[ranked])), published


def _counts(index: DatasetIndex) -> tuple[list[str], list[str]]:
  """The table of counts, and what differs from what was published and verified."""
  layout = LAYOUTS[index.name]
  lines = [f'{"":<22}{"images":>10}{"published":>11}{"people":>9}{"published":>11}{"cameras":>9}']
  problems = []
  for label, images, people, cameras, published in _count_rows(index):
    shown = ('', '')
    if published is not None:
      verified = published.verified
      shown = _mark(images, published.images, verified), _mark(people, published.identities, verified)
      told = ((images, published.images, 'images'), (people, published.identities, 'people'))
      for found, wanted, what in told if verified else ():
        if wanted not in (None, found):
          problems.append(f'{label}: {found:,} {what}, published are {wanted:,}')
    lines.append(f'{label:<22}{images:>10,}{shown[0]:>11}{people:>9,}{shown[1]:>11}{cameras:>9}')
  lines += [f'{name:<22}{"not there":>10}' for name in layout.folders if not len(index.splits[name])]
  lines.append(f'{"cameras in all":<22}{index.num_cameras:>10}{_mark(index.num_cameras, layout.num_cameras):>11}')
  complete = all(len(index.splits[name]) for name in layout.counts if name in index.splits)
  if complete and layout.num_cameras not in (None, index.num_cameras):
    problems.append(f'{index.num_cameras} cameras, published are {layout.num_cameras}')
  marks = [text for sign, text in (('*', '* differs'), ('?', '? unverified')) if any(sign in line for line in lines)]
  return lines + marks, problems


def _few_of(index: DatasetIndex, identities: np.ndarray) -> str:
  return name_some([index.identity_names[int(i)] for i in identities])


def _check_people(index: DatasetIndex) -> tuple[list[str], list[str]]:
  """Problems and notes on who is seen how often and by whom."""
  problems, notes = [], []
  train, query, gallery = index.train, index.query, index.gallery
  identities, counts = np.unique(train.identity, return_counts=True)
  single = identities[counts == 1]
  if len(single):
    notes.append(
      f'train: {len(single)} people with a single image, which is its own positive ({_few_of(index, single)})'
    )
  seen = np.unique(np.stack([train.identity, train.camera], axis=1), axis=0)[:, 0]
  identities, cameras = np.unique(seen, return_counts=True)
  alone = identities[cameras == 1]
  if len(alone):
    notes.append(f'train: {len(alone)} people seen by one camera only ({_few_of(index, alone)})')
  if len(train) and len(identities) == 1:
    problems.append('train: one person; telling people apart takes two')
  if len(query) and len(gallery):
    pairs = set(zip(gallery.identity.tolist(), gallery.camera.tolist(), strict=True))
    cameras_of: dict[int, set[int]] = {}
    for identity, camera in pairs:
      cameras_of.setdefault(identity, set()).add(camera)
    lost = [
      path
      for path, identity, camera in zip(query.paths, query.identity.tolist(), query.camera.tolist(), strict=True)
      if not cameras_of.get(identity, set()) - {camera}
    ]
    if lost:
      problems.append(f'query: {len(lost)} without a gallery image by another camera ({_short(index, lost)})')
  elif len(train):
    notes.append('no query with a gallery: it can be trained on, not evaluated')
  return problems, notes


def _short(index: DatasetIndex, paths: Sequence[str]) -> str:
  return name_some([os.path.relpath(path, index.root) for path in paths])


def _same_content(scan: Scan) -> list[list[int]]:
  """Places of sound files that are the same byte for byte, for every content that there is more than once."""
  sound = np.setdiff1d(np.arange(len(scan.paths)), list(scan.bad))
  _, content, counts = np.unique(scan.digest[sound], axis=0, return_inverse=True, return_counts=True)
  places: dict[int, list[int]] = {}
  for i, group in zip(sound.tolist(), content.tolist(), strict=True):
    if counts[group] > 1:
      places.setdefault(group, []).append(i)
  return list(places.values())


def _check_duplicates(index: DatasetIndex, scan: Scan) -> tuple[list[str], list[str]]:
  """Files of the same content: across splits they leak from training or query into what is searched."""
  names = list(index.splits)
  who = np.concatenate([np.stack([s.identity, s.camera], axis=1) for s in index.splits.values()])
  leaks: dict[tuple[str, str], list[str]] = {}
  within = 0
  for places in _same_content(scan):
    by_split: dict[str, list[int]] = {}
    for i in places:
      by_split.setdefault(names[scan.split[i]], []).append(i)
    within += len(places) - len(by_split)
    for one, other in itertools.combinations(by_split, 2):
      both = by_split[one] + by_split[other]
      # In the gallery, the same person by the same camera never counts.
      never_counts = (one, other) == ('query', 'gallery') and (who[both] == who[both[0]]).all()
      if {one, other} != NO_LEAK and not never_counts:
        pair = (scan.paths[by_split[split][0]] for split in (one, other))
        leaks.setdefault((one, other), []).append(' = '.join(os.path.relpath(path, index.root) for path in pair))
  problems = [
    f'{one} and {other} share {len(found)} images: {name_some(found)}' for (one, other), found in leaks.items()
  ]
  return problems, [f'{within} files repeat another one of their split, byte for byte'] if within else []


def _sizes(scan: Scan) -> list[str]:
  """A line on the sizes of the images."""
  known = scan.size_hw[scan.size_hw.all(axis=1)]
  if not len(known):
    return []
  sizes = [f'{int(h)}x{int(w)}' for h, w in (known.min(axis=0), np.median(known, axis=0), known.max(axis=0))]
  return [
    f'height x width: least {sizes[0]}, median {sizes[1]}, most {sizes[2]} (each by itself), '
    f'{len(np.unique(known, axis=0))} different sizes'
  ]


def make_report(index: DatasetIndex, scan: Scan) -> Report:
  """All findings."""
  table, differences = _counts(index)
  people, notes = _check_people(index)
  leaks, repeats = _check_duplicates(index, scan)
  return Report(table + _sizes(scan), [*scan.bad.values(), *leaks, *people, *differences], [*notes, *repeats])


def contact_sheet(index: DatasetIndex, scan: Scan) -> np.ndarray:
  """A row for each of a few people of every split; rows have their images from left to right, by path.

  Returns:
    u8[height, width, 3].

  Raises:
    UserError: no image can be shown.
  """
  bad = {scan.paths[i] for i in scan.bad}
  known = scan.size_hw[scan.size_hw.all(axis=1)]
  if not len(known):
    raise UserError(f'{index.root}: no image that could be shown')
  aspect = float(np.median(known[:, 1] / known[:, 0]))
  size_hw = SHEET_HEIGHT, int(np.clip(round(SHEET_HEIGHT * aspect), SHEET_HEIGHT // 4, SHEET_HEIGHT * 3))
  rows: dict[str, np.ndarray] = {}
  for name, split in index.splits.items():
    good = [i for i in _people(split).tolist() if split.paths[i] not in bad]
    people = np.unique(split.identity[good])
    chosen = people[np.unique(np.linspace(0, len(people) - 1, SHEET_PEOPLE).round().astype(int))] if len(people) else []
    for person in chosen:
      images = [split.paths[i] for i in good if split.identity[i] == person][:SHEET_IMAGES]
      label = f'{name} {printable(index.identity_names[int(person)])[:LABEL_LETTERS]}'
      rows[label] = np.stack([_fitted(path, size_hw) for path in images])
  columns = max(map(len, rows.values()))
  blank = np.full((columns, *size_hw, 3), 255, np.uint8)
  return sheets.training_grid({label: np.concatenate([row, blank])[:columns] for label, row in rows.items()})


def _fitted(path: str, size_hw: tuple[int, int]) -> np.ndarray:
  """An image whole and unstretched on white, u8[H, W, 3]."""
  image = decode_rgb(io.BytesIO(read_contents(path)), path)
  height, width = size_hw
  scale = min(height / image.height, width / image.width)
  shown = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
  canvas = Image.new('RGB', (width, height), WHITE)
  canvas.paste(shown, ((width - shown.width) // 2, (height - shown.height) // 2))
  return np.asarray(canvas)
