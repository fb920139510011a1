"""ONNX and TFLite files give what the networks give, and whatever does not is not kept."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

import dgnet_jax
from dgnet_jax.cli.main import main
from dgnet_jax.config.loading import save_config
from dgnet_jax.errors import UserError
from dgnet_jax.inference import export
from dgnet_jax.inference import export_files as exporting
from dgnet_jax.inference.export_files import FORMATS, export_files
from dgnet_jax.models.convolutions import unpadded_convolution
from dgnet_jax.models.plain_operations import plain_operations
from dgnet_jax.models.pooling import max_pool
from dgnet_jax.reports import sharing
from tests.conftest import REPO
from tests.tiny_run import correspondence_config, frozen, save_checkpoint, tiny_config

WITHOUT_JAX = """
import sys
class Blocked:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('jax', 'jaxlib', 'flax', 'dgnet_jax', 'tensorflow'):
      raise ImportError(name)
sys.meta_path.insert(0, Blocked())
"""
needs_onnx = pytest.mark.skipif(
  not all(map(importlib.util.find_spec, FORMATS['onnx'].libraries[0])), reason=FORMATS['onnx'].libraries[1]
)
# Later versions of JAX have no conversion to operations of TensorFlow, which TFLite needs.
needs_tflite = pytest.mark.skipif(
  importlib.util.find_spec('tensorflow') is None or jax.__version_info__ >= (0, 11),
  reason='needs TensorFlow, and JAX 0.10',
)


@pytest.fixture(scope='module')
def correspondence_run(tmp_path_factory):
  config, workdir = frozen(correspondence_config()), tmp_path_factory.mktemp('correspondence')
  save_checkpoint(config, workdir, num_identities=4, step=1)
  save_config(config, workdir / 'config.json')
  return workdir


def compare(workdir, folder, kind, names, size):
  """Compares files with the library, for other images than the export compares."""
  model = dgnet_jax.load(workdir)
  first, second = np.random.default_rng(7).integers(0, 256, (2, size, *model.image_size_hw, 3), np.uint8)
  if 'embed' in names:
    found = FORMATS[kind].run(folder / f'embed.{kind}', {'images': first})
    np.testing.assert_allclose(found, model.embed(list(first)), atol=1e-5)
  if 'swap' in names:
    found = FORMATS[kind].run(folder / f'swap.{kind}', {'structures': first, 'appearances': second})
    expected = model.swap(structure_from=list(first), appearance_from=list(second))
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 1


@needs_onnx
@pytest.mark.long
def test_onnx_of_both_designs_at_any_batch_size(tiny_run, correspondence_run, tmp_path):
  for workdir, name in ((tiny_run[1], 'adain'), (correspondence_run, 'correspondence')):
    folder = tmp_path / name
    main(['export', str(workdir), f'--out={folder}', '--format=onnx'])
    assert sorted(path.name for path in folder.iterdir()) == ['embed.onnx', 'model.json', 'swap.onnx']
    for size in (1, 3, 11):
      compare(workdir, folder, 'onnx', ('embed', 'swap'), size)


@needs_onnx
@pytest.mark.parametrize('style', ['AB', 'normal', 'PCB'])
def test_embedder_of_every_style_and_the_loader_of_the_documentation(style, tmp_path):
  config = tiny_config()
  config.reid.style, config.joint = style, style != 'AB'
  config.ramps.teaching.update(initial=0.0, maximum=0.0)
  config = frozen(config)
  save_checkpoint(config, tmp_path, num_identities=4, step=5)
  save_config(config, tmp_path / 'config.json')
  folder = tmp_path / 'exported'
  export_files(tmp_path, folder, 'onnx', only='embed' if config.joint else '')
  assert not (folder / 'swap.onnx').exists()  # without a generator, there is none by default, too
  compare(tmp_path, folder, 'onnx', ('embed',), 3)
  colours = [(200, 30, 30), (20, 60, 200)]
  for name, colour in zip(('anna.jpg', 'ben.jpg'), colours, strict=True):
    Image.new('RGB', (20, 40), colour).save(tmp_path / name)
  (loader,) = re.findall(r'```python\n(import json\n.*?)```', (REPO / 'docs' / 'library.md').read_text(), re.DOTALL)
  script = WITHOUT_JAX + loader + '\nnp.save("embeddings.npy", embeddings)\n'
  environment = {name: value for name, value in os.environ.items() if name != 'JAX_PLATFORMS'}
  printed = subprocess.run(
    [sys.executable, '-c', script], cwd=tmp_path, check=True, capture_output=True, text=True, env=environment
  )
  expected = dgnet_jax.load(tmp_path).embed([tmp_path / 'anna.jpg', tmp_path / 'ben.jpg'])
  np.testing.assert_allclose(np.load(tmp_path / 'embeddings.npy'), expected, atol=1e-3)  # resized by another program
  assert 'step 5' in printed.stdout


@needs_tflite
def test_tflite_of_both_designs(tiny_run, correspondence_run, tmp_path):
  main(['export', str(tiny_run[1]), f'--out={tmp_path / "adain"}', '--format=tflite'])
  compare(tiny_run[1], tmp_path / 'adain', 'tflite', ('embed', 'swap'), 1)
  description = json.loads((tmp_path / 'adain' / 'model.json').read_text())
  assert (description['step'], description['identities'], description['image_size_hw']) == (7, 4, [32, 16])
  assert description['embedding']['share'] == pytest.approx([2 / 3, 1 / 3])
  main(['export', str(correspondence_run), f'--out={tmp_path / "embed"}', '--format=tflite', '--only=embed'])
  assert sorted(path.name for path in (tmp_path / 'embed').iterdir()) == ['embed.tflite', 'model.json']
  main(['export', str(correspondence_run), f'--out={tmp_path / "correspondence"}', '--format=tflite'])
  compare(correspondence_run, tmp_path / 'correspondence', 'tflite', ('embed', 'swap'), 1)


@pytest.mark.parametrize(
  ('result', 'message'),
  [
    (lambda found: found + 2e-4, 'differs by up to 0.0002'),
    (lambda found: found * np.nan, 'differs by up to nan'),
    (lambda found: found[:, 1:], 'and the network'),
    (lambda found: found.astype(np.float64), 'gives float64'),
    (lambda found: 1 / 0, r'embed cannot be converted \(ZeroDivisionError'),
  ],
  ids=['wrong', 'nan', 'shape', 'type', 'broken'],
)
def test_files_that_differ_are_not_kept(result, message, tiny_run, tmp_path, monkeypatch):
  """A converter that writes nothing, and a runtime that gives the library's results, changed."""
  _, workdir, _ = tiny_run
  model = dgnet_jax.load(workdir)
  form = exporting.Format(
    ((), ''), lambda *arguments: b'', lambda path, inputs: result(model.embed(list(inputs['images']))), (1, 8)
  )
  monkeypatch.setitem(FORMATS, 'onnx', form)
  with pytest.raises(UserError, match=message):
    export_files(workdir, tmp_path / 'out', 'onnx', only='embed')
  assert not list(tmp_path.iterdir())


def test_mistakes_are_reported_before_anything_is_loaded(tiny_run, tmp_path, capsys, monkeypatch):
  for module in (exporting, export, sharing):
    monkeypatch.setattr(module, 'open_model', lambda *arguments, **options: pytest.fail('loaded'))

  def error_of(*arguments, out='out'):
    with pytest.raises(SystemExit):
      main(['export', str(tiny_run[1]), f'--out={tmp_path / out}', *arguments])
    return capsys.readouterr().err

  assert '--platforms is not for --format=onnx' in error_of('--format=onnx', '--platforms=cpu')
  assert '--only is not for --format=stablehlo' in error_of('--only=embed')
  for argument in ('--platforms=cpu', '--format=tflite', '--format=stablehlo', '--only=embed'):
    name = argument.partition('=')[0]
    assert f'{name} is not for a .safetensors file' in error_of(argument, out='m.safetensors')
  for platforms, problem in (('cpu,gpu', "'gpu'"), ('cpu,', "''"), ('CPU', "'CPU'")):
    found = error_of(f'--platforms={platforms}')
    assert f'unknown platform {problem}; name some of cpu, cuda, rocm, tpu' in found
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert 'pip install --no-deps "jax2onnx>=0.17.1"' in error_of('--format=onnx')
  assert '--format=tflite needs tensorflow: pip install' in error_of('--format=tflite')
  (tmp_path / 'out').mkdir()
  assert 'exists already' in error_of('--format=onnx')


def test_plain_operations_change_no_result():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 3)), jnp.float32) - 3
  for stride, padding in ((1, 1), (2, 1), (2, 0)):
    expected = max_pool(x, stride=stride, padding=padding)
    with plain_operations():
      np.testing.assert_array_equal(max_pool(x, stride=stride, padding=padding), expected)


def test_operations_are_plain_within_the_context_only():
  image, kernel = jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 3, 2))

  def program():
    return str(jax.make_jaxpr(lambda x, k: (max_pool(x), unpadded_convolution(x, k)))(image, kernel))

  before = program()
  assert 'platform_index' in before and '(1, 1), (1, 1)' in before
  with plain_operations():
    assert 'platform_index' not in program() and '(1, 1), (1, 1)' not in program()
  assert program() == before
