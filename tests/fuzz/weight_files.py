"""Files with weights: of PyTorch, safetensors and models, and the settings of the release."""

import io
import json
import pathlib

from dgnet_jax.config.defaults import default_config
from dgnet_jax.inference import model_file
from dgnet_jax.interop.pretrained import read_weights
from dgnet_jax.interop.release.files import read_state_dict
from dgnet_jax.interop.release.importer import _make_config
from dgnet_jax.interop.release.optimizer import adam_betas, read_optimizers
from dgnet_jax.interop.release.sizes import num_identities, release_sizes
from dgnet_jax.interop.torch_file import read_torch
from tests.fuzz import mutations
from tests.fuzz.reader import Reader, json_of, text_of
from tests.interop.torch_files import BEGIN, binary, tensor, write_zip

DATA = pathlib.Path(__file__).parents[1] / 'interop' / 'data'


def _zipped(pickle, **files):
  file = io.BytesIO()
  write_zip(file, pickle, files=files)
  return file.getvalue()


def _torch(*bodies):
  """Zips around changed pickles, and changed files of both formats."""
  files = [(DATA / name).read_bytes() for name in ('torch_2_13.pt', 'torch_2_13_legacy.pt')]
  legacy = files[1]
  magic = legacy[: legacy.index(BEGIN, legacy.index(b'little_endian'))]
  zipped = mutations.pickles(bodies).map(_zipped)
  old = mutations.pickles(bodies).map(
    lambda body: magic + BEGIN + body + b'.' + BEGIN + b'](' + binary('0') + b'e.' + bytes(64)
  )
  return zipped | old | mutations.mutated([*files, *map(_zipped, bodies)], mutations.PICKLE_TOKENS)


STATE_DICT = b'}(' + binary('conv1.weight') + tensor((2, 2), (2, 1)) + binary('bn1.weight') + tensor() + b'u'
NAMES = (
  *(
    'model.conv1.weight',
    'model.layer1.0.conv1.weight',
    'model.layer2.0.conv1.weight',
    'classifier1.add_block.0.weight',
  ),
  *(
    'classifier1.classifier.0.weight',
    'enc_content.model.0.conv.weight',
    'enc_content.model.4.model.0.x',
    'dec.model.1.model.0.x',
  ),
  *(
    'mlp_w1.model.0.fc.weight',
    'cnns.0.0.conv.weight',
    'cnn.0.conv.weight',
    'classifier.add_block.0.weight',
    'dec.model.2.gamma',
  ),
)

NETWORK = b'}' + binary('a') + b'}(' + b''.join(binary(name) + tensor((2, 2), (2, 1)) for name in NAMES) + b'us'
GROUP = (
  b'}(' + binary('params') + b'](K\0K\1e' + binary('lr') + binary(0.1) + binary('betas') + binary((0.5, 0.9)) + b'u'
)

STATE = b'}(K\0}' + binary('exp_avg') + tensor() + b'sK\1}' + binary('step') + b'K\7su'
OPTIMIZER = b'}(' + binary('state') + STATE + binary('param_groups') + b'](' + GROUP + b'eu'
OPTIMIZERS = b'}(' + b''.join(binary(name) + OPTIMIZER for name in ('gen', 'dis', 'id')) + b'u'


def _read_network(path):
  state_dict = read_state_dict('gen', path)
  state_dicts = {name: state_dict for name in ('gen', 'id', 'dis', 'teacher')}
  sources = dict.fromkeys(state_dicts, str(path))
  release_sizes(state_dicts, sources)
  num_identities(state_dicts, sources)


def _read_settings(path):
  """The other problems of a config do not name the file, but the field."""
  _make_config({'config': path}, {}, None, {})


TENSORS = {
  'a': {'dtype': 'F32', 'shape': [2, 4], 'data_offsets': [0, 32]},
  'b': {'dtype': 'BF16', 'shape': [16], 'data_offsets': [32, 64]},
}

TENSORS['__metadata__'] = {'format': 'pt'}
YAML = 'batch_size: 8\nlr2: 1e-4\nbeta1: 0.5\ncrop_image_height: 256\nstep_size: 60000\nID_style: AB\n'
YAML += 'gen:\n  dim: 16\n  activ: relu\n'


def _read_model_description(path):
  """The metadata of a model file; its arrays are read as those of the other safetensors files."""
  description = model_file.read_description({model_file.KEY: path.read_text(errors='replace')}, path)
  model_file._config_of(description, num_arrays=300, path=path)


READERS = {
  'torch': Reader('x.pt', read_torch, _torch(STATE_DICT, OPTIMIZERS)),
  'weights': Reader('x.pth', read_weights, _torch(STATE_DICT)),
  'network': Reader('gen.pt', _read_network, _torch(NETWORK)),
  'optimizers': Reader('optimizer.pt', lambda path: adam_betas(read_optimizers(path)), _torch(OPTIMIZERS)),
  'safetensors': Reader(
    'x.safetensors',
    read_weights,
    json_of(TENSORS).map(mutations.with_length)
    | mutations.mutated([mutations.with_length(json.dumps(TENSORS).encode())], mutations.JSON_TOKENS),
  ),
  'model file': Reader(
    'x.json',
    _read_model_description,
    json_of(
      {'format': 1, 'step': 5, 'num_identities': 3, 'config': default_config().to_dict(), 'about': {'results': {}}}
    ),
  ),
  'yaml': Reader('config.yaml', _read_settings, text_of(mutations.YAML_TOKENS, YAML, 'a: [1, {b: c}]\n')),
}
