"""Pickles that no file of torch's has: all are told, none is run."""

import os
import pickle
import struct
import zipfile

import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.interop.torch_file import read_torch
from tests.interop.torch_files import binary, storage, tensor, write_zip


class Evil:
  """A pickle that runs a command when it is loaded in the usual way."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('protocol', [2, 4])
def test_commands_are_refused_and_not_run(tmp_path, protocol):
  touched = tmp_path / 'touched'
  path = tmp_path / 'evil.pt'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickle.dumps({'a': Evil(touched)}, protocol))
  with pytest.raises(UserError, match=r"evil\.pt: refused, because it asks for '(posix|nt)\.system'.*state_dict"):
    read_torch(path)
  assert not touched.exists()


LONG = b'\x8a\x08' + struct.pack('<q', 10**15)
SHARED = b'h\x00h\x00\x86q\x00'  # a pair of what memo 0 holds, twice, into memo 0
HOSTILE = {
  'unknown class': (b'cnetworks\nAdaINGen\n', "asks for 'networks.AdaINGen'"),
  'whole module': (b'ctorch.nn.modules.container\nSequential\n)\x81', "'torch.nn.modules.container.Sequential'"),
  'a name that is long': (b'c' + b'a' * 10**6 + b'\nb\n', 'asks for .a{100}'),
  'a cousin of a function': (b'ctorch._utils\n_rebuild_tensor_v3\n', '_rebuild_tensor_v3'),
  'a function as a value': (b'ccollections\nOrderedDict\n', 'is no data'),
  'a storage as a value': (storage(), 'is no data'),
  'call of a text': (binary('x') + b')R', 'no function'),
  'call of a storage class': (b'ctorch\nFloatStorage\n)R', 'no function'),
  'call with wrong arguments': (b'ctorch._utils\n_rebuild_tensor_v2\n)R', 'TypeError'),
  'attributes of a list': (b']}b', 'attributes'),
  'an old instruction': (b'(ios\nsystem\n', 'instruction INST'),
  'an extension': (b'\x82\x01', 'instruction EXT1'),
  'list in itself': (b']q\x00h\x00a', 'contains itself'),
  'dictionary in itself': (b'}q\x00X\x01\x00\x00\x00ah\x00s', 'contains itself'),
  'deep nesting': (b']' * 100_000 + b'a' * 99_999, 'within each other'),
  'doubled two hundred times': (b')q\x00' + SHARED * 200, 'within each other'),
  'doubled fifty times as a key': (b')q\x00' + SHARED * 50 + b'}h\x00Ns', 'key that is a tuple'),
  'a list as a key': (b'}]Ns', 'key that is a list'),
  'ordered pairs with a list as a key': (b'ccollections\nOrderedDict\n(((]Nttt' + b'R', 'key that is a list'),
  'nothing on the stack': (b'0' * 3, 'POP'),
  'unknown memo': (b'h\x07', 'KeyError'),
  'no mark': (b't', 'IndexError'),
  'odd entries': (b'}(Nu', 'ValueError'),
  'stretched by stride 0': (tensor((10**15,), (0,)), 'more than the file holds'),
  'stretched in two axes': (tensor((10**6, 10**6), (0, 0)), 'more than the file holds'),
  'beyond the storage': (tensor((4,), (1,), 1), 'reaches number 4 of a storage of 4'),
  'far beyond the storage': (tensor((2,), (10**12,)), 'reaches number'),
  'negative offset': (tensor(offset=-1), 'no possible shape'),
  'negative shape': (tensor((-4,)), 'no possible shape'),
  'shape of texts': (tensor(('4',)), 'no possible shape'),
  'axes without strides': (tensor((2, 2), (1,)), '2 axes with 1 strides'),
  'a hundred axes': (tensor((1,) * 100, (1,) * 100), '100 axes'),
  'empty and beyond all': (tensor((0, 10**15, 10**15), (1, 1, 1)), '3 axes'),
  'huge storage': (tensor(of=storage(count=LONG)), 'should have 1000000000000000'),
  'absent storage': (tensor(of=storage(key='7')), "storage '7' should have"),
  'storage outside': (tensor(of=storage(key='../data.pkl')), 'should have'),
  'storage of two types': (storage() + storage(kind=b'ctorch\nHalfStorage\n') + b'\x86', 'two types'),
  'storage of no type': (storage(kind=b'N'), 'without a type'),
  'reference to a module': (binary(('module', 'x', 'y')) + b'Q', 'no storage'),
  'parameter of a number': (b'ctorch.nn.parameter\nParameter\nK\x01\x85R', 'no tensor'),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_hostile_pickles_are_told(tmp_path, case):
  content, message = HOSTILE[case]
  with pytest.raises(UserError, match=rf'hostile\.pt: .*{message}'):
    read_torch(write_zip(tmp_path / 'hostile.pt', content))


def test_sharing_costs_nothing(tmp_path):
  """Two to the fiftieth empty tuples, of which fifty exist."""
  value = read_torch(write_zip(tmp_path / 'shared.pt', b')q\x00' + SHARED * 50))
  assert value[0] is value[1]


def test_too_many_instructions(tmp_path, monkeypatch):
  monkeypatch.setattr('dgnet_jax.interop.torch_pickle.MAX_OPCODES', 1000)
  with pytest.raises(UserError, match='more than 1000 instructions'):
    read_torch(write_zip(tmp_path / 'long.pt', b'](' + b'N' * 1000 + b'e'))
