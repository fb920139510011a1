"""Pickles that torch does not write are rejected, and never executed."""

import os
import pickle
import struct
import zipfile

import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.interop.torch_file import read_torch
from tests.interop.torch_files import binary, storage, tensor, write_zip


class Evil:
  """An object whose pickle executes a command when Python loads it."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('protocol', [2, 4])
def test_commands_are_rejected_and_not_executed(tmp_path, protocol):
  touched = tmp_path / 'touched'
  path = tmp_path / 'evil.pt'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickle.dumps({'a': Evil(touched)}, protocol))
  with pytest.raises(UserError, match=r"evil\.pt: rejected because it refers to '(posix|nt)\.system'.*state_dict"):
    read_torch(path)
  assert not touched.exists()


HUGE = b'\x8a\xff' + b'\x7f' * 255
LONG = b'\x8a\x08' + struct.pack('<q', 10**15)
SHARED = b'h\x00h\x00\x86q\x00'  # a pair of what memo 0 holds, twice, into memo 0
HOSTILE = {
  'unknown class': (b'cnetworks\nAdaINGen\n', "refers to 'networks.AdaINGen'"),
  'pickled module': (b'ctorch.nn.modules.container\nSequential\n)\x81', "'torch.nn.modules.container.Sequential'"),
  'long name': (b'c' + b'a' * 10**6 + b'\nb\n', 'refers to .a{100}'),
  'unknown function': (b'ctorch._utils\n_rebuild_tensor_v3\n', '_rebuild_tensor_v3'),
  'function as a value': (b'ccollections\nOrderedDict\n', 'is not data'),
  'storage as a value': (storage(), 'is not data'),
  'call of a string': (binary('x') + b')R', 'not a function'),
  'call of a storage class': (b'ctorch\nFloatStorage\n)R', 'not a function'),
  'call with wrong arguments': (b'ctorch._utils\n_rebuild_tensor_v2\n)R', 'TypeError'),
  'attributes of a list': (b']}b', 'attributes'),
  'old opcode': (b'(ios\nsystem\n', 'opcode INST'),
  'extension': (b'\x82\x01', 'opcode EXT1'),
  'list in itself': (b']q\x00h\x00a', 'contains itself'),
  'dictionary in itself': (b'}q\x00X\x01\x00\x00\x00ah\x00s', 'contains itself'),
  'deep nesting': (b']' * 100_000 + b'a' * 99_999, 'nested containers'),
  'doubled two hundred times': (b')q\x00' + SHARED * 200, 'nested containers'),
  'doubled fifty times as a key': (b')q\x00' + SHARED * 50 + b'}h\x00Ns', 'key that is a tuple'),
  'list as a key': (b'}]Ns', 'key that is a list'),
  'ordered pairs with a list as a key': (b'ccollections\nOrderedDict\n(((]Nttt' + b'R', 'key that is a list'),
  'empty stack': (b'0' * 3, 'POP'),
  'unknown memo entry': (b'h\x07', 'KeyError'),
  'missing mark': (b't', 'IndexError'),
  'odd number of entries': (b'}(Nu', 'ValueError'),
  'stretched by stride 0': (tensor((10**15,), (0,)), 'more than the file has'),
  'stretched in two axes': (tensor((10**6, 10**6), (0, 0)), 'more than the file has'),
  'beyond the storage': (tensor((4,), (1,), 1), 'reads element 4 of a storage of 4'),
  'far beyond the storage': (tensor((2,), (10**12,)), 'reads element'),
  'negative offset': (tensor(offset=-1), 'invalid shape'),
  'negative shape': (tensor((-4,)), 'invalid shape'),
  'shape of strings': (tensor(('4',)), 'invalid shape'),
  'axes without strides': (tensor((2, 2), (1,)), '2 axes with 1 strides'),
  'hundred axes': (tensor((1,) * 100, (1,) * 100), 'invalid shape'),
  'ten thousand huge axes': (tensor((HUGE,) * 10_000, (HUGE,) * 10_000), 'invalid shape'),
  'huge axis': (tensor((2**63,)), 'invalid shape'),
  'empty with huge axes': (tensor((0, 10**15, 10**15), (1, 1, 1)), 'more than the file has'),
  'one tensor a hundred times': (b'](' + tensor((1000,), (0,)) * 100 + b'e', 'times the bytes of the file'),
  'a list given again and again': (
    b'](](' + (binary('x') + b'N\x86') * 2000 + b'eq\x00' + b'ccollections\nOrderedDict\nh\x00\x85R' * 600 + b'e',
    'calls with more than',
  ),
  'keys with one hash': (b'}(' + b''.join(binary(i * (2**61 - 1)) + b'N' for i in range(9)) + b'u', 'long integer'),
  'huge storage': (tensor(of=storage(count=LONG)), 'should have 1000000000000000'),
  'missing storage': (tensor(of=storage(key='7')), "storage '7' should have"),
  'storage outside the folder': (tensor(of=storage(key='../data.pkl')), 'should have'),
  'storage of two types': (storage() + storage(kind=b'ctorch\nHalfStorage\n') + b'\x86', 'two types'),
  'storage without a type': (storage(kind=b'N'), 'without a type'),
  'reference to a module': (binary(('module', 'x', 'y')) + b'Q', 'not a storage'),
  'parameter of a number': (b'ctorch.nn.parameter\nParameter\nK\x01\x85R', 'not a tensor'),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_hostile_pickles_are_rejected(tmp_path, case):
  content, message = HOSTILE[case]
  with pytest.raises(UserError, match=rf'hostile\.pt: .*{message}'):
    read_torch(write_zip(tmp_path / 'hostile.pt', content))


def test_shared_values_are_resolved_once(tmp_path):
  """2^50 empty tuples, of which only fifty exist."""
  value = read_torch(write_zip(tmp_path / 'shared.pt', b')q\x00' + SHARED * 50))
  assert value[0] is value[1]


def test_too_many_opcodes_are_rejected(tmp_path, monkeypatch):
  monkeypatch.setattr('dgnet_jax.interop.torch_pickle.MAX_OPCODES', 1000)
  with pytest.raises(UserError, match='more than 1000 opcodes'):
    read_torch(write_zip(tmp_path / 'long.pt', b'](' + b'N' * 1000 + b'e'))
