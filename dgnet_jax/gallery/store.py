"""A gallery on disk: Parquet files with the embeddings of its photos, and `gallery.json`, which says what they are.

`gallery.json` names the Parquet files that count, and is replaced at once: whatever a killed build leaves is not in it.
The files have the columns of `COLUMNS`. An embedding is what `Predictor.embed` returns: pieces of length 1 each, before
they are weighted (`inference.scoring`), so that alpha is chosen when the gallery is searched.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import os
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dgnet_jax.errors import UserError
from dgnet_jax.gallery.photos import Labels, Photo
from dgnet_jax.utils.atomic_files import remove_leftovers, write_json
from dgnet_jax.utils.bounded_files import read_json, read_regular
from dgnet_jax.utils.extras import require_pyarrow
from dgnet_jax.utils.writers import save_table

DESCRIPTION = 'gallery.json'
FORMAT = 2
MAX_DESCRIPTION_BYTES = 2**24  # of a hundred thousand files
ROWS = 2_000  # photos in a file: 8 MB with 1,024 numbers each
MAX_PART_BYTES = 2**28  # of a file, unpacked
MAX_SIZE = 2**16  # numbers in an embedding
COLUMNS = {  # of the files, with their types; the last column is the embedding, a fixed-size list of float32
  **dict.fromkeys(('root', 'path', 'identity', 'camera', 'track', 'sha256'), 'string'),
  **dict.fromkeys(('size', 'modified_ns'), 'int64'),
}
UNSEARCHED = ('sha256', 'size', 'modified_ns')  # only building needs them
_PART = re.compile(r'part-([0-9]{8})\.parquet')


class LostPart(UserError):
  """A file of the gallery is missing or damaged; building embeds its photos again.

  Attributes:
    problem: what is wrong with which file.
  """

  def __init__(self, problem: str, advice: str) -> None:
    super().__init__(f'{problem}; {advice}')
    self.problem = problem


class Row(NamedTuple):
  """A photo in the gallery: where it is, what is known about it, and the file as it was embedded."""

  photo: Photo
  labels: Labels
  size: int
  modified_ns: int
  sha256: str


class Part(NamedTuple):
  """A Parquet file of the gallery, its number of rows, and the roots of their photos: what is lost with the file."""

  file: str
  rows: int
  roots: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Description:
  """The content of `gallery.json`.

  Attributes:
    networks: digest of the parameters that embed (`Predictor.embedder_digest`).
    step: step of their checkpoint.
    run: path of the run's work folder when the gallery was built.
    image_size_hw: height and width to which photos are resized.
    size: numbers in an embedding.
    num_pieces: pieces of length 1 in it, such as halves.
    id: of the gallery, which no other has.
    identity_pattern, camera_pattern, tracks: as for `photos.Labeler`.
    parts: the files that count.
    next_part: number of the next file; no number is used twice, so that a name always means the same rows.
    pending: numbers of photos that a stopped build has not embedded, by their roots.
  """

  networks: str
  step: int
  run: str
  image_size_hw: tuple[int, int]
  size: int
  num_pieces: int
  id: str = ''
  identity_pattern: str = ''
  camera_pattern: str = ''
  tracks: str = ''
  parts: tuple[Part, ...] = ()
  next_part: int = 0
  pending: Mapping[str, int] = dataclasses.field(default_factory=dict)

  @property
  def num_photos(self) -> int:
    """Photos in all parts."""
    return sum(part.rows for part in self.parts)

  @property
  def num_pending(self) -> int:
    """Photos that stopped builds have not embedded."""
    return sum(self.pending.values())

  def embedded(self, parts: Sequence[Part], rows: Sequence[Row]) -> 'Description':
    """Returns the description with more parts, which hold photos that were pending."""
    return dataclasses.replace(
      self, parts=(*self.parts, *parts), pending=dict(Counter(self.pending) - Counter(row.photo.root for row in rows))
    )


def is_gallery(path: str | os.PathLike[str]) -> bool:
  """Returns True if a folder has a gallery in it."""
  with contextlib.suppress(OSError, ValueError):
    return os.path.isfile(os.path.join(path, DESCRIPTION))
  return False


def read_description(folder: pathlib.Path) -> Description:
  """Reads `gallery.json`.

  Raises:
    UserError: it is missing, damaged, or of another version.
  """
  path = folder / DESCRIPTION
  try:
    values = read_json(path, MAX_DESCRIPTION_BYTES)
    if not isinstance(values, dict) or type(values.get('format')) is not int:
      raise ValueError('not a description of a gallery')
    if values['format'] != FORMAT:
      raise UserError(
        f'{path}: format {values["format"]}, and this version reads {FORMAT}; build the gallery anew in another folder'
      )
    return _checked(values)
  except (OSError, ValueError, TypeError, KeyError) as error:
    reason = f'{error} is missing' if isinstance(error, KeyError) else getattr(error, 'strerror', None) or error
    raise UserError(f'{path}: cannot be read ({reason}); build the gallery anew in another folder') from error


def _checked(values: Mapping[str, Any]) -> Description:
  """Returns the description; raises ValueError, TypeError or KeyError if a value is wrong."""
  texts = {name: values[name] for name in ('networks', 'run', 'id', 'identity_pattern', 'camera_pattern', 'tracks')}
  numbers = {name: values[name] for name in ('step', 'size', 'num_pieces', 'next_part')}
  height, width = values['image_size_hw']
  parts = tuple(Part(part['file'], part['rows'], tuple(part['roots'])) for part in values['parts'])
  pending = dict(values['pending'])
  whole = (*numbers.values(), height, width, *(part.rows for part in parts), *pending.values())
  names = (*texts.values(), *pending, *(root for part in parts for root in part.roots))
  if any(type(part['roots']) is not list for part in values['parts']):
    raise ValueError('a value of the wrong kind')
  if not all(isinstance(name, str) for name in names) or not all(type(n) is int and n >= 0 for n in whole):
    raise ValueError('a value of the wrong kind')
  size, num_pieces = numbers['size'], numbers['num_pieces']
  if not 0 < num_pieces <= size <= MAX_SIZE or size % num_pieces:
    raise ValueError(f'embeddings of {size} numbers in {num_pieces} pieces')
  if any(not 0 < part.rows <= ROWS for part in parts):
    raise ValueError('a wrong number of rows')
  if len({part.file for part in parts}) < len(parts) or not all(_PART.fullmatch(part.file) for part in parts):
    raise ValueError('a wrong name of a file')
  if any(int(part.file[5:13]) >= numbers['next_part'] for part in parts):
    raise ValueError('a wrong number of the next file')
  return Description(**texts, **numbers, image_size_hw=(height, width), parts=parts, pending=pending)


def check_networks(folder: pathlib.Path, description: Description, networks: Description) -> None:
  """Raises UserError if a gallery is by other networks than those described by `networks`."""
  what = ('networks', 'image_size_hw', 'size', 'num_pieces')
  if any(getattr(description, name) != getattr(networks, name) for name in what):
    raise UserError(
      f'{folder}: built by other networks (step {description.step} of {description.run}; these are of step '
      f'{networks.step} of {networks.run}), whose embeddings cannot be compared. Build the gallery anew in another '
      'folder: dgnet index build RUN PHOTOS --out=FOLDER'
    )


class GalleryStore:
  """The files of a gallery.

  Args:
    folder: where they are.
    description: what is in them; `replace` writes a new one.
  """

  def __init__(self, folder: pathlib.Path, description: Description) -> None:
    self.folder, self.description = folder, description
    require_pyarrow(folder, 'which is what galleries are stored in')

  def replace(self, description: Description) -> None:
    """Makes a new description the one that counts."""
    values = dataclasses.asdict(description) | {'parts': [part._asdict() for part in description.parts]}
    write_json(self.folder / DESCRIPTION, {'format': FORMAT, 'num_photos': description.num_photos} | values)
    self.description = description

  def add(self, rows: Sequence[Row], embeddings: npt.NDArray[np.float32]) -> Part:
    """Writes a file that does not count yet.

    Args:
      rows: N photos, at most `ROWS`.
      embeddings: f32[N, D].
    """
    import pyarrow

    number = self.description.next_part
    self.description = dataclasses.replace(self.description, next_part=number + 1)
    values = [(*row.photo, *row.labels, row.sha256, row.size, row.modified_ns) for row in rows]
    columns: dict[str, Any] = {
      name: pyarrow.array(column, kind)
      for (name, kind), column in zip(COLUMNS.items(), zip(*values, strict=True), strict=True)
    }
    flat = np.ascontiguousarray(embeddings, np.float32).reshape(-1)
    columns['embedding'] = pyarrow.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
    path = save_table(self.folder / f'part-{number:08d}.parquet', columns)
    return Part(path.name, len(rows), tuple(sorted({row.photo.root for row in rows})))

  def rows(self, part: Part) -> list[Row]:
    """Reads the photos of a part; raises UserError if it is missing or damaged."""
    table = self._read(part, list(COLUMNS))
    columns = [table[name].to_pylist() for name in COLUMNS]
    found = []
    for root, path, identity, camera, track, sha256, size, modified in zip(*columns, strict=True):
      if None in (root, path, sha256, size, modified):
        raise self._damaged(part, 'a value is missing')
      found.append(Row(Photo(root, path), Labels(identity, camera, track), size, modified, sha256))
    return found

  def table(self) -> Any:
    """Reads what is known about all photos, in the order of the parts, as a pyarrow table without `UNSEARCHED`.

    Raises:
      UserError: a part is missing or damaged.
    """
    import pyarrow

    names = [name for name in COLUMNS if name not in UNSEARCHED]
    tables = []
    for part in self.description.parts:
      table = self._read(part, names)
      if table['root'].null_count or table['path'].null_count:
        raise self._damaged(part, 'a value is missing')
      tables.append(table)
    return pyarrow.concat_tables(tables)

  def embeddings(self, part: Part) -> npt.NDArray[np.float32]:
    """Reads the embeddings of a part: f32[rows, D]; raises UserError if it is missing or damaged."""
    column = self._read(part, ['embedding'])['embedding']
    if column.null_count:
      raise self._damaged(part, 'a value is missing')
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    embeddings: npt.NDArray[np.float32] = flat.reshape(-1, self.description.size)
    if not np.isfinite(embeddings).all():
      raise self._damaged(part, 'an embedding is not finite')
    return embeddings

  def remove_others(self) -> None:
    """Removes the Parquet files that do not count, and what killed processes left."""
    kept = {part.file for part in self.description.parts}
    for path in self.folder.glob('part-*.parquet'):
      if path.name not in kept:
        path.unlink(missing_ok=True)
    remove_leftovers(self.folder)

  def _read(self, part: Part, columns: Sequence[str]) -> Any:
    """Reads columns of a part, if it is what `gallery.json` says it is and not too large."""
    import pyarrow
    import pyarrow.parquet

    path = self.folder / part.file
    try:
      content = read_regular(path, MAX_PART_BYTES)
    except FileNotFoundError as error:
      raise LostPart(
        f'{path}: is missing',
        'if the gallery is being built right now, try again; otherwise `dgnet index build` embeds its photos again',
      ) from error
    except OSError as error:  # the file may be whole, and must not be given up
      raise UserError(f'{path}: cannot be read ({error.strerror})') from error
    try:
      with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)) as file:
        if file.metadata.num_rows != part.rows or not file.schema_arrow.equals(_schema(self.description.size)):
          raise ValueError('other rows or columns than those of the gallery')
        if _unpacked_bytes(file.metadata) > MAX_PART_BYTES:
          raise ValueError('too large')
        table = file.read(columns)
        table.validate(full=True)  # also that texts are UTF-8
        return table
    except (OSError, ValueError, pyarrow.ArrowException) as error:
      raise self._damaged(part, str(error)) from error

  def _damaged(self, part: Part, why: str) -> LostPart:
    return LostPart(
      f'{self.folder / part.file}: damaged ({why})', 'delete it, and `dgnet index build` embeds its photos again'
    )


def _schema(size: int) -> Any:
  import pyarrow

  fields = [pyarrow.field(name, kind) for name, kind in COLUMNS.items()]
  return pyarrow.schema([*fields, pyarrow.field('embedding', pyarrow.list_(pyarrow.float32(), size))])


def _unpacked_bytes(metadata: Any) -> int:
  """Returns the bytes of all columns of a Parquet file when they are read."""
  groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
  return sum(group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns))
