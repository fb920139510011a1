"""Writes files that torch.load(weights_only=True) reads: the zip format of PyTorch 1.6 and later.

Written by hand because the only library that writes them is torch itself, which is not a dependency.
"""

from collections import OrderedDict
import io
import os
import struct
from typing import Any
import zipfile

import numpy as np

from dgnet_jax.interop.torch_pickle import STORAGE_DTYPES
from dgnet_jax.utils.atomic_files import atomic_file

ALIGNMENT = 64  # bytes; torch can map a storage into memory if it starts at a multiple of this
LOCAL_HEADER_BYTES = 30  # of a zip entry, before its name
EPOCH = (1980, 1, 1, 0, 0, 0)  # time stamp of every entry, so that equal contents give equal files

_STORAGES = {dtype: path.rpartition('.') for path, dtype in STORAGE_DTYPES.items()}


def write_torch(path: str | os.PathLike[str], tree: Any) -> None:
  """Writes `tree` as torch.save would, atomically.

  Args:
    path: the file to write; missing folders are created.
    tree: dictionaries (an OrderedDict stays one) with string or int keys, lists, tuples, numbers, strings, None, and
      arrays of a dtype that torch's storages have.

  Raises:
    TypeError: `tree` has a value of another type.
  """
  pickler = _Pickler()
  pickle = pickler.dump(tree)
  with atomic_file(path) as temporary, temporary.open('wb') as file, zipfile.ZipFile(file, 'w') as archive:

    def add(name: str, content: bytes) -> None:
      entry = zipfile.ZipInfo(f'archive/{name}', EPOCH)
      begin = file.tell() + LOCAL_HEADER_BYTES + len(entry.filename) + 4
      padding = -begin % ALIGNMENT
      entry.extra = struct.pack('<2sH', b'FB', padding) + bytes(padding)  # the field that torch pads with
      archive.writestr(entry, content)

    add('data.pkl', pickle)
    add('byteorder', b'little')
    for key, array in enumerate(pickler.arrays):
      add(f'data/{key}', array.astype(array.dtype.newbyteorder('<'), copy=False).tobytes())
    add('version', b'3\n')


class _Pickler:
  """Writes protocol 2 without a memo: a value that occurs twice is written twice."""

  def __init__(self) -> None:
    self._out = io.BytesIO()
    self.arrays: list[np.ndarray] = []

  def dump(self, tree: Any) -> bytes:
    """Returns the pickle of `tree` and collects its arrays in `arrays`, in the order of their storage keys."""
    self._out.write(b'\x80\x02')
    self._add(tree)
    self._out.write(b'.')
    return self._out.getvalue()

  def _add(self, value: Any) -> None:
    if value is None:
      self._out.write(b'N')
    elif isinstance(value, bool):
      self._out.write(b'\x88' if value else b'\x89')
    elif isinstance(value, int):
      self._add_int(value)
    elif isinstance(value, float):
      self._out.write(b'G' + struct.pack('>d', value))
    elif isinstance(value, str):
      text = value.encode()
      self._out.write(b'X' + struct.pack('<I', len(text)) + text)
    elif isinstance(value, tuple):
      self._add_all(b'(', value, b't')
    elif isinstance(value, list):
      self._add_all(b'](', value, b'e')
    elif isinstance(value, dict):
      begin = b'ccollections\nOrderedDict\n)R(' if isinstance(value, OrderedDict) else b'}('
      self._add_all(begin, [part for item in value.items() for part in item], b'u')
    elif isinstance(value, np.ndarray | np.generic) and value.dtype in _STORAGES:
      self._add_tensor(np.asarray(value))
    else:
      raise TypeError(f'a torch file cannot hold {type(value).__name__} {getattr(value, "dtype", "")}')

  def _add_all(self, begin: bytes, values: Any, end: bytes) -> None:
    self._out.write(begin)
    for value in values:
      self._add(value)
    self._out.write(end)

  def _add_int(self, value: int) -> None:
    if -(2**31) <= value < 2**31:
      self._out.write(b'J' + struct.pack('<i', value))
    else:
      digits = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
      self._out.write(b'\x8a' + bytes([len(digits)]) + digits)

  def _add_tensor(self, array: np.ndarray) -> None:
    module, _, storage = _STORAGES[array.dtype]
    self._out.write(b'ctorch._utils\n_rebuild_tensor_v2\n((')
    self._add('storage')
    self._out.write(f'c{module}\n{storage}\n'.encode())
    self._add(str(len(self.arrays)))
    self._add('cpu')
    self._add(array.size)
    self._out.write(b'tQ')
    strides = [int(np.prod(array.shape[axis + 1 :], dtype=np.int64)) for axis in range(array.ndim)]
    for argument in (0, tuple(array.shape), tuple(strides), False):
      self._add(argument)
    self._add(OrderedDict())
    self._out.write(b'tR')
    self.arrays.append(array)
