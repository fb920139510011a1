"""Reads PyTorch's files (.pt, .pth) into dictionaries, lists, numbers and NumPy arrays, without executing anything.

Both formats are read: the zip of PyTorch 1.6 and later, and the sequence of pickles before it. Written by hand because
the only library that reads them is torch itself, which is not a dependency.
"""

from collections.abc import Callable
import io
import math
import mmap
import os
import pathlib
import struct
from typing import Any, BinaryIO
import zipfile

import numpy as np

from dgnet_jax.errors import UserError
from dgnet_jax.interop.torch_pickle import Malformed, StorageRef, TensorRef, read_pickle

MAX_FILE_BYTES = 4 * 2**30  # the release's largest has 400 MB; a file with holes can be larger than the disk
MAX_PICKLE_BYTES = 64 * 2**20  # of data.pkl in a zip, which has names and shapes; that of ResNet-50 has 40 kB
MAX_DEPTH = 100  # of nested containers; an optimizer's state has five levels
MAX_SHARING = 4  # total size of all tensors by that of the file; above 1 if they share storages
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001


def read_torch(path: str | os.PathLike[str]) -> Any:
  """Reads what torch.save wrote. Nothing in the file is executed.

  Args:
    path: a zip or legacy file.

  Returns:
    Dictionaries (also for OrderedDict), lists, tuples, numbers, strings, None, and read-only arrays of the saved dtype,
    shape and values. Tensors that share a storage in the file share memory here.

  Raises:
    UserError: the file is missing, damaged, truncated or not written by torch.save; it refers to a class or function,
      as pickled modules do; or it claims more data than it has.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  with path.open('rb') as file:
    try:
      if _size_of(file) > MAX_FILE_BYTES:
        raise Malformed(f'{_size_of(file)} bytes, more than any network here has')
      if file.read(4) == b'PK\x03\x04':
        return _read_zip(file, path)
      if not _size_of(file):
        raise Malformed('empty')
      # Mapped, because reading from a plain file allocates the requested bytes even if the file has fewer.
      with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _read_legacy(mapped, _size_of(file), path)
    except Malformed as error:
      raise UserError(
        f'{path}: {error}. The file is damaged or was not written by torch.save; download or copy it again and compare '
        'its size.'
      ) from error


def _size_of(file: BinaryIO) -> int:
  return os.fstat(file.fileno()).st_size


def _big_endian(path: pathlib.Path) -> UserError:
  return UserError(f'{path}: saved on a big-endian machine, which is not supported; save it on a little-endian machine')


def _read_zip(file: BinaryIO, path: pathlib.Path) -> Any:
  try:
    with zipfile.ZipFile(file) as archive:
      if any(name.endswith('/constants.pkl') for name in archive.namelist()):
        raise UserError(
          f'{path}: a TorchScript program; save a state dict instead: torch.save(model.state_dict(), FILE)'
        )
      entries = _entries(archive, _size_of(file))
      root = _root(entries)
      if f'{root}byteorder' in entries and archive.read(entries[f'{root}byteorder']) != b'little':
        raise _big_endian(path)
      pickle = entries[f'{root}data.pkl']
      if pickle.file_size > MAX_PICKLE_BYTES:
        raise Malformed(f'data.pkl has {pickle.file_size} bytes, more than any state dict needs')
      tree, storages = read_pickle(io.BytesIO(archive.read(pickle)), str(path))

      def content(ref: StorageRef) -> bytes:
        entry = entries.get(f'{root}data/{ref.key}')
        if entry is None or entry.file_size != ref.count * ref.dtype.itemsize:
          raise Malformed(f'storage {ref.key[:40]!r} should have {ref.count} elements of {ref.dtype}')
        return archive.read(entry)

      contents = {key: content(ref) for key, ref in storages.items()}
  except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
    raise Malformed(f'not a valid zip ({error})') from error
  return _resolve(tree, _array_maker(contents, _size_of(file)))


def _entries(archive: zipfile.ZipFile, file_size: int) -> dict[str, zipfile.ZipInfo]:
  """Entries by name; none is compressed, and together they are no larger than the file, so they cannot expand."""
  entries = {info.filename: info for info in archive.infolist()}
  if len(entries) != len(archive.infolist()):
    raise Malformed('two entries with the same name')
  if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
    raise Malformed('compressed entries, which torch.save does not write')
  claimed = sum(info.file_size for info in entries.values())
  if claimed > file_size:
    raise Malformed(f'entries of {claimed} bytes in a file of {file_size} bytes')
  return entries


def _root(entries: dict[str, zipfile.ZipInfo]) -> str:
  """Returns the folder in the zip: 'archive/', or named after the file."""
  roots = [name.removesuffix('data.pkl') for name in entries if name.count('/') == 1 and name.endswith('/data.pkl')]
  if len(roots) != 1:
    raise Malformed('a zip that does not have exactly one data.pkl')
  return roots[0]


def _read_legacy(file: mmap.mmap, file_size: int, path: pathlib.Path) -> Any:
  if read_pickle(file, str(path))[0] != LEGACY_MAGIC:
    raise Malformed('the magic number is missing')
  if read_pickle(file, str(path))[0] != LEGACY_VERSION:
    raise Malformed('unknown version of the format')
  system = read_pickle(file, str(path))[0]
  if not isinstance(system, dict) or system.get('little_endian') is not True:
    raise _big_endian(path)
  tree, storages = read_pickle(file, str(path))
  keys = read_pickle(file, str(path))[0]
  if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != storages.keys():
    raise Malformed('the list of storages does not match the tensors')
  contents = {}
  for key in keys:
    ref = storages[key]
    count = int.from_bytes(file.read(8), 'little')
    size = count * ref.dtype.itemsize
    if count != ref.count or size > file_size - file.tell():
      raise Malformed(f'storage {key[:40]!r} should have {ref.count} elements of {ref.dtype}')
    contents[key] = file.read(size)
  return _resolve(tree, _array_maker(contents, file_size))


def _array_maker(contents: dict[str, bytes], file_size: int) -> Callable[[TensorRef], np.ndarray]:
  """Makes arrays that are views of their storages, so that a stride of 0 cannot allocate more than the file has."""
  total = 0

  def array_of(ref: TensorRef) -> np.ndarray:
    storage = np.frombuffer(contents[ref.storage.key], ref.storage.dtype)
    count = math.prod(ref.shape)
    if max(count, *ref.shape, 0) * storage.itemsize > file_size:
      raise Malformed(f'a tensor of shape {list(ref.shape)}, more than the file has')
    nonlocal total
    total += count * storage.itemsize
    if total > MAX_SHARING * file_size:
      raise Malformed(f'tensors of more than {MAX_SHARING} times the bytes of the file')
    last = ref.offset + sum((size - 1) * stride for size, stride in zip(ref.shape, ref.strides, strict=True))
    if count and last >= storage.size:
      raise Malformed(f'a tensor that reads element {last} of a storage of {storage.size}')
    if not count:
      storage, steps, start = np.zeros(1, storage.dtype), (0,) * len(ref.shape), 0
    else:
      steps, start = tuple(stride * storage.itemsize for stride in ref.strides), ref.offset
    try:
      return np.lib.stride_tricks.as_strided(storage[start:], ref.shape, steps, writeable=False)
    except (ValueError, OverflowError) as error:  # too many axes, or sizes beyond the range of an index
      raise Malformed(f'a tensor of {len(ref.shape)} axes: {error}') from error

  return array_of


def _resolve(tree: Any, array_of: Callable[[TensorRef], np.ndarray]) -> Any:
  """Copies `tree`, replacing tensors by arrays.

  Raises:
    Malformed: a container contains itself, containers are nested too deeply, or a value is not data.
  """
  done: dict[int, Any] = {}
  unfinished: set[int] = set()

  def visit(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
      return value
    if id(value) in done:
      return done[id(value)]
    if id(value) in unfinished:
      raise Malformed('a container that contains itself')
    if depth > MAX_DEPTH:
      raise Malformed(f'more than {MAX_DEPTH} nested containers')
    unfinished.add(id(value))
    if isinstance(value, TensorRef):
      resolved: Any = array_of(value)
    elif isinstance(value, dict):
      resolved = {key: visit(item, depth + 1) for key, item in value.items()}
    elif isinstance(value, list | tuple):
      resolved = type(value)([visit(item, depth + 1) for item in value])
    else:
      raise Malformed(f'{value} is not data')
    unfinished.remove(id(value))
    done[id(value)] = resolved
    return resolved

  return visit(tree, 0)
