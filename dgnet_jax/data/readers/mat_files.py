"""MATLAB files, which others may have made: one matrix of numbers, of bounded size. Nothing in them is executed.

scipy builds arrays from what a file says, so it only gets files whose compressed parts and headers were checked.
"""

import io
import pathlib
import struct
import zlib

import numpy as np
import numpy.typing as npt
import scipy.io

from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import read_regular

MAX_BYTES = 2**26  # of a file, and of what it unpacks to; MARS's largest has 400 KB
MAX_NUMBERS = 2**22
HEADER_BYTES, TAG_BYTES = 128, 8
COMPRESSED = 15  # type of an element in version 5
NUMERIC = ('double', 'single', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64')


def read_matrix(path: pathlib.Path) -> npt.NDArray[np.int64]:
  """Reads the only matrix of a MATLAB file of version 5 to 7: whole numbers, i64[M, N].

  Raises:
    UserError: the file cannot be read, is too large, or has something else in it.
  """
  try:
    content = read_regular(path, MAX_BYTES)
    _check_unpacked_size(content)
    variables = scipy.io.whosmat(io.BytesIO(content))
    if len(variables) != 1:
      raise ValueError(f'{len(variables)} variables; expected one')
    name, shape, kind = variables[0]
    if kind not in NUMERIC or len(shape) != 2 or not 0 < int(np.prod(shape, dtype=object)) <= MAX_NUMBERS:
      raise ValueError(f'{kind} of shape {shape}; expected a matrix of numbers')
    matrix = np.asarray(scipy.io.loadmat(io.BytesIO(content), variable_names=[name])[name])
    if matrix.shape != shape or matrix.dtype.kind not in 'iuf' or not np.array_equal(matrix, np.round(matrix)):
      raise ValueError('not whole numbers')
    if not (np.abs(matrix.astype(np.float64)) < 2**53).all():
      raise ValueError('numbers that are too large')
    return matrix.astype(np.int64)
  except Exception as error:  # damaged files make scipy raise almost anything
    raise UserError(f'{path}: cannot be read as a matrix of a MATLAB file ({error})') from error


def _check_unpacked_size(content: bytes) -> None:
  """Raises ValueError if a file is not of version 5 to 7, or if its compressed elements unpack to too much."""
  if len(content) < HEADER_BYTES or content[126:128] not in (b'IM', b'MI'):
    raise ValueError('not of version 5 to 7')
  order = '<' if content[126:128] == b'IM' else '>'
  position, unpacked = HEADER_BYTES, 0
  while position + TAG_BYTES <= len(content):
    kind, size = struct.unpack_from(f'{order}II', content, position)
    if kind == COMPRESSED:
      element = content[position + TAG_BYTES : position + TAG_BYTES + size]
      unpacked += len(zlib.decompressobj().decompress(element, MAX_BYTES - unpacked + 1))
      if unpacked > MAX_BYTES:
        raise ValueError(f'unpacks to more than {MAX_BYTES} bytes')
    position += TAG_BYTES + size
