"""Files of torch.save: real ones in both formats, and containers written by hand."""

import io
import pathlib
import pickle
import random
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.interop import torch_file
from dgnet_jax.interop.torch_file import read_torch
from tests.interop.torch_files import BEGIN, assert_array, binary, storage, tensor, write_zip

DATA = pathlib.Path(__file__).parent / 'data'  # the same object, saved by PyTorch 2.13 in both formats
REAL = ('torch_2_13.pt', 'torch_2_13_legacy.pt')
BASE = np.arange(12.0, dtype=np.float32).reshape(3, 4)


@pytest.fixture(params=REAL)
def real(request):
  return DATA / request.param


class TestRealFiles:
  def test_arrays(self, real):
    content = read_torch(real)
    assert_array(content['float'], BASE)
    assert_array(content['transposed'], BASE.T[1:3])
    assert_array(content['row'], BASE[1])
    assert_array(content['expanded'], np.ones(7, np.float32))
    assert_array(content['parameter'], BASE)
    assert_array(content['empty'], np.zeros((0, 3), np.float32))
    assert_array(content['scalar'], np.float32(3.5))
    assert_array(content['bool'], BASE > 5)
    dtypes = {'half': np.float16, 'bfloat16': ml_dtypes.bfloat16, 'double': np.float64}
    dtypes |= {name: np.dtype(name) for name in ('int8', 'uint8', 'int16', 'int32', 'int64')}
    for name, dtype in dtypes.items():
      assert_array(content[name], BASE.astype(dtype))

  def test_other_values(self, real):
    content = read_torch(real)
    assert content['plain'] == [1, -5, 2**40, 1.5, 'é', True, None, (1, 2, 3, 4)]
    assert content['size'] == (2, 3)
    assert list(content['norm']) == ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    assert_array(content['norm']['bias'], np.array([3, 4], np.float32))
    assert content['adam']['param_groups'][0]['params'] == [0, 1]
    np.testing.assert_allclose(content['adam']['state'][1]['exp_avg_sq'], 0.001)

  def test_truncated_files_are_rejected(self, real, tmp_path):
    content = real.read_bytes()
    path = tmp_path / 'cut.pt'
    for length in {0, 1, 4, *range(5, len(content), 97), len(content) - 1}:
      path.write_bytes(content[:length])
      with pytest.raises(UserError, match='cut.pt: '):
        read_torch(path)

  def test_changed_files_are_read_or_rejected(self, real, tmp_path):
    content, rng = real.read_bytes(), random.Random(0)
    path, rejected = tmp_path / 'changed.pt', 0
    for _ in range(400):
      changed = bytearray(content)
      for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
      path.write_bytes(changed)
      try:
        read_torch(path)
      except UserError:
        rejected += 1
    assert rejected > 100


def test_helpers_write_valid_files(tmp_path):
  assert_array(read_torch(write_zip(tmp_path / 'good.pt', tensor())), np.arange(4, dtype=np.float32))


def test_large_pickle_is_rejected(tmp_path, monkeypatch):
  monkeypatch.setattr(torch_file, 'MAX_PICKLE_BYTES', 1000)
  with pytest.raises(UserError, match='data.pkl has 1'):
    read_torch(write_zip(tmp_path / 'large.pt', b'N' * 1000))


class TestZips:
  def test_compressed_entries_are_rejected(self, tmp_path):
    content = tensor(of=storage(count=10**6))
    path = write_zip(
      tmp_path / 'bomb.pt', content, files={'data/0': bytes(4 * 10**6)}, compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(UserError, match='compressed entries'):
      read_torch(path)

  def test_overlapping_entries_are_rejected(self, tmp_path):
    """Many entries for the same bytes: together they are larger than the file."""
    path = write_zip(tmp_path / 'folded.pt', tensor(), files={f'data/{i}': bytes(4000) for i in range(1, 9)})
    with zipfile.ZipFile(path) as archive:
      offset = archive.getinfo('archive/data/1').header_offset
      end = archive.getinfo('archive/data/2').header_offset
      cut = archive.getinfo('archive/data/8').header_offset + end - offset
      content = path.read_bytes()
    directory = bytearray(content[cut:])
    at = -1
    while (at := directory.find(b'PK\x01\x02', at + 1)) >= 0:
      if struct.unpack_from('<I', directory, at + 42)[0] >= offset:
        struct.pack_into('<I', directory, at + 42, offset)
    end_record = directory.rfind(b'PK\x05\x06')
    struct.pack_into('<I', directory, end_record + 16, end)
    path.write_bytes(content[:end] + directory)
    with pytest.raises(UserError, match=r'entries of \d+ bytes in a file of'):
      read_torch(path)

  def test_big_endian_is_rejected(self, tmp_path):
    with pytest.raises(UserError, match='big-endian machine'):
      read_torch(write_zip(tmp_path / 'big.pt', tensor(), files={'byteorder': b'big'}))

  def test_torchscript_is_rejected(self, tmp_path):
    with pytest.raises(UserError, match='TorchScript'):
      read_torch(write_zip(tmp_path / 'script.pt', tensor(), files={'constants.pkl': b''}))

  def test_duplicate_entries_are_rejected(self, tmp_path):
    path = write_zip(tmp_path / 'two.pt', tensor())
    with zipfile.ZipFile(path, 'a') as archive, pytest.warns(UserWarning, match='Duplicate name'):
      archive.writestr('archive/data/0', bytes(16))
    with pytest.raises(UserError, match='same name'):
      read_torch(path)

  def test_storage_of_another_size_is_rejected(self, tmp_path):
    with pytest.raises(UserError, match="storage '0' should have 4 elements of float32"):
      read_torch(write_zip(tmp_path / 'short.pt', tensor(), files={'data/0': bytes(12)}))

  def test_changed_elements_are_rejected(self, tmp_path):
    path = write_zip(tmp_path / 'flipped.pt', tensor())
    content = path.read_bytes()
    path.write_bytes(content.replace(np.float32(3).tobytes(), np.float32(5).tobytes()))
    with pytest.raises(UserError, match='not a valid zip .Bad CRC'):
      read_torch(path)

  def test_other_zips_are_rejected(self, tmp_path):
    with zipfile.ZipFile(tmp_path / 'other.pt', 'w') as archive:
      archive.writestr('readme.txt', 'hello')
    with pytest.raises(UserError, match=r'exactly one data\.pkl'):
      read_torch(tmp_path / 'other.pt')


def write_legacy(path, content=None, *, magic=0x1950A86A20F9469CFC6C, version=1001, little=True, keys=('0',), count=4):
  file = io.BytesIO()
  for value in (magic, version, {'protocol_version': version, 'little_endian': little}):
    pickle.dump(value, file, 2)
  of = binary(('storage', b'ctorch\nFloatStorage\n', '0', 'cpu', 4, b'N')) + b'Q'
  file.write(BEGIN + (tensor((2, 2), (2, 1), of=of) if content is None else content) + b'.')
  pickle.dump(list(keys), file, 2)
  file.write(struct.pack('<q', count) + np.arange(4, dtype='<f4').tobytes())
  path.write_bytes(file.getvalue())
  return path


class TestLegacy:
  def test_file_written_by_hand_is_read(self, tmp_path):
    assert_array(read_torch(write_legacy(tmp_path / 'old.pth')), np.arange(4, dtype=np.float32).reshape(2, 2))

  def test_parameters_of_the_oldest_versions_are_read(self, tmp_path):
    """An OrderedDict with attributes, of parameters that are objects with attributes."""
    of = binary(('storage', b'ctorch\nFloatStorage\n', '0', 'cpu', 4, b'N')) + b'Q'
    old = b'ctorch._utils\n_rebuild_tensor\n' + binary((of, 0, (4,), (1,))) + b'R'
    parameter = b'ctorch.nn.parameter\nParameter\n' + old + b'\x85R(\x88\x89Ntb'
    content = b'ccollections\nOrderedDict\n)R' + b'(' + binary('w') + parameter + b'u}(' + binary('items') + b'Nub'
    assert_array(read_torch(write_legacy(tmp_path / 'old.pth', content))['w'], np.arange(4, dtype=np.float32))

  @pytest.mark.parametrize(
    ('changed', 'message'),
    [
      ({'magic': 7}, 'magic number'),
      ({'version': 1002}, 'unknown version'),
      ({'little': False}, 'big-endian'),
      ({'keys': ()}, 'list of storages'),
      ({'keys': ('0', '1')}, 'list of storages'),
      ({'count': 10**15}, "storage '0' should have 4"),
      ({'content': b'cos\nsystem\n'}, "'os.system'"),
    ],
  )
  def test_invalid_files_are_rejected(self, tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
      read_torch(write_legacy(tmp_path / 'old.pth', **changed))

  def test_view_of_another_storage_is_rejected(self, tmp_path):
    of = binary(('storage', b'ctorch\nFloatStorage\n', '0', 'cpu', 4, ('1', 0, 2))) + b'Q'
    with pytest.raises(UserError, match='view of another'):
      read_torch(write_legacy(tmp_path / 'old.pth', tensor(of=of)))


def test_other_files_are_rejected(tmp_path):
  for name, content in (('empty', b''), ('page', b'<!DOCTYPE html>'), ('pointer', b'version https://git-lfs')):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f'{name}: .*not written by torch.save; download or copy it again'):
      read_torch(path)
  for path in (tmp_path, tmp_path / 'absent.pt'):
    with pytest.raises(UserError, match='no such file'):
      read_torch(path)
