"""Written files are read back, by torch too where it is installed."""

from collections import OrderedDict
import pickletools
import zipfile

import ml_dtypes
import numpy as np
import pytest

from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_write import ALIGNMENT, write_torch

TREE = {
  'a': OrderedDict([('w', np.arange(6, dtype=np.float32).reshape(2, 3)), ('n', np.asarray(7, np.int64))]),
  'dtypes': [np.ones(3, kind) for kind in ('f8', 'f2', ml_dtypes.bfloat16, 'i4', 'i2', 'i1', 'u1', '?')],
  'strided': np.arange(12.0).reshape(3, 4).T[1:],
  'empty': np.zeros((0, 3), np.float32),
  0: (1, -1, 2**31, -(2**31) - 1, 2**40, True, False, None, 1.5, 'é'),
}


def assert_same(actual, expected):
  if isinstance(expected, np.ndarray):
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)
  elif isinstance(expected, dict):
    assert list(actual) == list(expected)
    for key in expected:
      assert_same(actual[key], expected[key])
  elif isinstance(expected, list | tuple):
    assert type(actual) is type(expected) and len(actual) == len(expected)
    for x, y in zip(actual, expected, strict=True):
      assert_same(x, y)
  else:
    assert actual == expected and type(actual) is type(expected)


def test_values_are_read_back(tmp_path):
  write_torch(tmp_path / 'file.pt', TREE)
  assert_same(read_torch(tmp_path / 'file.pt'), TREE)


def test_torch_reads_the_file(tmp_path):
  torch = pytest.importorskip('torch')
  write_torch(tmp_path / 'file.pt', TREE)
  content = torch.load(tmp_path / 'file.pt', weights_only=True)
  np.testing.assert_array_equal(content['a']['w'].numpy(), TREE['a']['w'])
  assert isinstance(content['a'], OrderedDict) and content[0] == TREE[0]


def test_format(tmp_path):
  """The zip has the entries that torch reads, uncompressed and aligned, and the pickle is of protocol 2."""
  write_torch(tmp_path / 'file.pt', TREE)
  with zipfile.ZipFile(tmp_path / 'file.pt') as archive, (tmp_path / 'file.pt').open('rb') as file:
    assert archive.read('archive/version') == b'3\n' and archive.read('archive/byteorder') == b'little'
    opcodes = [opcode for opcode, _, _ in pickletools.genops(archive.read('archive/data.pkl'))]
    assert max(opcode.proto for opcode in opcodes) == 2
    for entry in archive.infolist():
      assert entry.compress_type == zipfile.ZIP_STORED
      file.seek(entry.header_offset + 26)
      name, extra = (int.from_bytes(file.read(2), 'little') for _ in range(2))
      assert (entry.header_offset + 30 + name + extra) % ALIGNMENT == 0


def test_equal_contents_give_equal_files(tmp_path):
  for name in ('one.pt', 'two.pt'):
    write_torch(tmp_path / name, TREE)
  assert (tmp_path / 'one.pt').read_bytes() == (tmp_path / 'two.pt').read_bytes()


@pytest.mark.parametrize('value', [{'a': object()}, np.zeros(2, np.complex64), [b'bytes'], {1.5: 2, 'x': {3}}])
def test_other_types_are_rejected(tmp_path, value):
  with pytest.raises(TypeError, match='a torch file cannot hold'):
    write_torch(tmp_path / 'file.pt', value)
  assert not list(tmp_path.iterdir())
