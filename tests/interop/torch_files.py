"""Writes files in torch's format, opcode by opcode."""

import pickle
import zipfile

import numpy as np

BEGIN = b'\x80\x02'


def assert_array(actual, expected):
  assert actual.dtype == expected.dtype and actual.shape == expected.shape
  np.testing.assert_array_equal(actual, expected)


def binary(value):
  """The pickle of a number, string, tuple or raw opcodes, without its frame."""
  if isinstance(value, bytes):
    return value
  if isinstance(value, tuple):
    return b'(' + b''.join(binary(item) for item in value) + b't'
  return pickle.dumps(value, 2)[2:-1]


def storage(key='0', kind=b'ctorch\nFloatStorage\n', count=4):
  return binary(('storage', kind, key, 'cpu', count)) + b'Q'


def tensor(shape=(4,), strides=(1,), offset=0, *, of=None):
  arguments = (storage() if of is None else of, offset, shape, strides, b'\x89', b'N')
  return b'ctorch._utils\n_rebuild_tensor_v2\n' + binary(arguments) + b'R'


def write_zip(path, content, *, files=None, compression=zipfile.ZIP_STORED):
  """Writes a zip in torch's format around a pickle; storage 0 has four float32."""
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('archive/data.pkl', BEGIN + content + b'.')
    for name, data in ({'data/0': np.arange(4, dtype='<f4').tobytes()} | (files or {})).items():
      archive.writestr(f'archive/{name}', data)
  return path
