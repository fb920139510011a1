"""All sources of training batches: the same images in the same order."""

import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.data.images import read_image
from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources import in_memory, tfdata
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.data.sources.tfdata import decode_and_resize, import_tensorflow
from dgnet_jax.errors import UserError
from tests.conftest import REPO
from tests.data.folders import TRAIN, write_market

LOADERS = ('memory', 'threads', 'tfdata')


@pytest.fixture(scope='module', params=LOADERS)
def loader(request):
  if request.param == 'tfdata':
    pytest.importorskip('tensorflow', exc_type=ImportError)
  return request.param


@pytest.fixture(scope='module')
def tf():
  pytest.importorskip('tensorflow', exc_type=ImportError)
  return import_tensorflow()


def make_config(loader='memory', size=(16, 8)):
  config = default_config()
  config.data.loader, config.data.image_size_hw, config.data.decode_threads = loader, size, 2
  config.batch_size, config.teacher.batch_size = 2, 4
  return config


@pytest.fixture(scope='module')
def split(tmp_path_factory):
  return read_layout(write_market(tmp_path_factory.mktemp('market'))).train


def take(batches, count):
  return list(itertools.islice(batches, count))


def test_pairs(split, loader, monkeypatch):
  monkeypatch.setattr(tfdata, 'WINDOW', 2)
  source = make_source(split, make_config(loader))
  batches = take(source.batches(0), 7)
  files = np.stack([read_image(path, (16, 8)) for path in split.paths]).astype(int)
  for step, batch in enumerate(batches):
    drawn = source.sampler.batch(step)
    assert batch.image.dtype == batch.positive.dtype == np.uint8 and batch.identity.dtype == np.int32
    assert batch.image.shape == batch.positive.shape == (2, 2, 16, 8, 3)
    assert np.abs(batch.image - files[drawn['image']]).max() <= 3
    assert np.abs(batch.positive - files[drawn['positive']]).max() <= 3
    np.testing.assert_array_equal(batch.identity, drawn['identity'])
  jax.tree.map(np.testing.assert_array_equal, take(source.batches(4), 3), batches[4:])


def test_singles(split, loader):
  source = make_source(split, make_config(loader))
  images, classes = zip(*take(source.single_batches(1), 3), strict=True)
  assert images[0].shape == (4, 16, 8, 3) and classes[0].dtype == np.int32
  for step, (image, identity) in enumerate(zip(images, classes, strict=True), 1):
    drawn = source.single_sampler.batch(step)
    np.testing.assert_array_equal(identity, drawn['identity'])
    expected = np.stack([read_image(split.paths[i], (16, 8)) for i in drawn['image']])
    assert np.abs(image.astype(int) - expected).max() <= 3


def test_sources_agree_on_real_crops(shared_data_dir, tf):
  split = read_layout(shared_data_dir / 'market_mini').train
  one, same, two = (next(make_source(split, make_config(loader, (256, 128))).batches(5)) for loader in LOADERS)
  jax.tree.map(np.testing.assert_array_equal, one, same)  # both decode with Pillow
  np.testing.assert_array_equal(one.identity, two.identity)
  for a, b in ((one.image, two.image), (one.positive, two.positive)):
    assert np.mean(np.abs(a.astype(int) - b) <= 1) > 0.999


@pytest.mark.parametrize('i', range(4))
def test_tensorflow_agrees_with_the_release(parity_dir, tf, i, ledger):
  with np.load(parity_dir / 'preprocess.npz') as golden:
    contents, decoded, resized = (golden[f'{name}{i}'] for name in ('file', 'decoded', 'resized'))
  same_size = decode_and_resize(tf, contents.tobytes(), decoded.shape[:2])
  np.testing.assert_array_equal(same_size, decoded)
  image = decode_and_resize(tf, contents.tobytes(), (256, 128)).numpy()
  off = np.abs(image.astype(int) - resized)
  ledger.check('preprocess: the same with tf.data', np.mean(off > 1), 0.01)


def test_tensorflow_sees_no_accelerator(tf):
  assert tf.config.get_visible_devices('GPU') == []


def test_too_few_images(split, loader):
  config = make_config(loader)
  config.batch_size = 8
  with pytest.raises(UserError, match='fewer than a batch of 8'):
    next(make_source(split, config).batches(0))


def test_memory_names_every_unreadable_file(tmp_path):
  split = read_layout(write_market(tmp_path)).train
  for name in TRAIN[1:3]:
    (tmp_path / 'bounding_box_train' / name).write_bytes(b'')
  with pytest.raises(UserError, match='2 of 6') as error:
    make_source(split, make_config())
  assert TRAIN[1] in str(error.value) and TRAIN[2] in str(error.value)


def test_a_file_damaged_while_training_is_named(tmp_path, tf):
  split = read_layout(write_market(tmp_path)).train
  path = tmp_path / 'bounding_box_train' / TRAIN[1]
  path.write_bytes(path.read_bytes()[:-60])
  with pytest.raises(UserError, match=TRAIN[1]):
    take(make_source(split, make_config('tfdata')).batches(0), 6)


def test_memory_needed_is_told_and_too_much_is_refused(split, monkeypatch, lines):
  lines.clear()
  make_source(split, make_config(size=(1024, 512)))
  assert lines == ['holding 6 images of 1024x512 in memory: 9 MiB']
  monkeypatch.setattr(in_memory, '_physical_memory', lambda: 1000)
  with pytest.raises(UserError, match="'tfdata'"):
    make_source(split, make_config())


def test_missing_tensorflow_is_explained(split, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  with pytest.raises(UserError, match='tfdata'):
    make_source(split, make_config('tfdata'))


def test_a_process_gets_its_rows(split, loader, monkeypatch):
  whole = next(make_source(split, make_config(loader)).batches(3))
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  rows = []
  for process in (0, 1):
    monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
    rows.append(next(make_source(split, make_config(loader)).batches(3)))
  jax.tree.map(lambda a, *b: np.testing.assert_array_equal(a, np.concatenate(b)), whole, *rows)


def test_memory_needs_no_tensorflow(split):
  program = (
    'import sys; sys.modules["tensorflow"] = None\n'
    'from dgnet_jax.config.defaults import default_config\n'
    'from dgnet_jax.data.registry import read_layout\n'
    'from dgnet_jax.data.sources.factory import make_source\n'
    'config = default_config(); config.data.loader = "memory"; config.batch_size = 2\n'
    'index = read_layout(sys.argv[1])\n'
    'print(next(make_source(index.train, config).batches(0)).image.shape)\n'
  )
  root = os.path.dirname(os.path.dirname(split.paths[0]))
  done = subprocess.run([sys.executable, '-c', program, root], cwd=REPO, capture_output=True, text=True, check=True)
  assert done.stdout.endswith('(2, 2, 256, 128, 3)\n')
