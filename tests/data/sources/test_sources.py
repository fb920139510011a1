"""All sources of training batches yield the same images in the same order."""

import dataclasses
import itertools
import os
import subprocess
import sys

import jax
import numpy as np
from PIL import Image
import pytest

from dgnet_jax.config.schema import Config, DataConfig, TeacherConfig
from dgnet_jax.data.images import read_image
from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources import factory, in_memory
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.data.sources.threaded import ThreadSource
from dgnet_jax.errors import UserError
from tests.conftest import REPO
from tests.data.folders import TRAIN, write_market

LOADERS = ('memory', 'threads', 'tfdata')


@pytest.fixture(scope='module', params=LOADERS)
def loader(request):
  if request.param == 'tfdata':
    pytest.importorskip('tensorflow', exc_type=ImportError)
  return request.param


def make_config(loader='memory', image_size_hw=(16, 8), **data_fields):
  data_config = DataConfig(loader=loader, image_size_hw=image_size_hw, **{'decode_threads': 2, **data_fields})
  return Config(batch_size=2, data=data_config, teacher=TeacherConfig(batch_size=4))


@pytest.fixture(scope='module')
def split(tmp_path_factory):
  return read_layout(write_market(tmp_path_factory.mktemp('market'))).train


def take(batches, count):
  return list(itertools.islice(batches, count))


def test_pair_batches_hold_the_images_of_the_sampler(split, loader):
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


def test_single_batches_hold_the_images_of_the_sampler(split, loader):
  source = make_source(split, make_config(loader))
  images, classes = zip(*take(source.single_batches(1), 3), strict=True)
  assert images[0].shape == (4, 16, 8, 3) and classes[0].dtype == np.int32
  for step, (image, identity) in enumerate(zip(images, classes, strict=True), 1):
    drawn = source.single_sampler.batch(step)
    np.testing.assert_array_equal(identity, drawn['identity'])
    expected = np.stack([read_image(split.paths[i], (16, 8)) for i in drawn['image']])
    assert np.abs(image.astype(int) - expected).max() <= 3


def test_sources_agree_on_real_crops(shared_data_dir):
  pytest.importorskip('tensorflow', exc_type=ImportError)
  split = read_layout(shared_data_dir / 'market_mini').train
  memory, threads, tfdata = (next(make_source(split, make_config(loader, (256, 128))).batches(5)) for loader in LOADERS)
  jax.tree.map(np.testing.assert_array_equal, memory, threads)  # both decode with Pillow
  np.testing.assert_array_equal(memory.identity, tfdata.identity)
  for a, b in ((memory.image, tfdata.image), (memory.positive, tfdata.positive)):
    assert np.mean(np.abs(a.astype(int) - b) <= 1) > 0.999


def test_fewer_images_than_a_batch_is_an_error(split, loader):
  config = dataclasses.replace(make_config(loader), batch_size=8)
  with pytest.raises(UserError, match='fewer than a batch of 8'):
    next(make_source(split, config).batches(0))


def test_memory_reports_every_unreadable_file(tmp_path):
  split = read_layout(write_market(tmp_path)).train
  for name in TRAIN[1:3]:
    (tmp_path / 'bounding_box_train' / name).write_bytes(b'')
  with pytest.raises(UserError, match='2 of 6') as error:
    make_source(split, make_config())
  assert TRAIN[1] in str(error.value) and TRAIN[2] in str(error.value)


def test_memory_logs_its_size_and_refuses_too_much(split, monkeypatch, lines):
  make_source(split, make_config(image_size_hw=(1024, 512)))
  assert lines == ['holding 6 images of 1024x512 in memory: 9 MiB']
  monkeypatch.setattr(in_memory, '_physical_memory', lambda: 1000)
  with pytest.raises(UserError, match="the loaders 'tfdata' and 'threads' .data.loader. do not hold them"):
    make_source(split, make_config())


def test_threads_replaces_tfdata_where_tensorflow_is_missing(split, monkeypatch, lines):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  factory._warn_without_tensorflow.cache_clear()
  sources = [make_source(split, make_config('tfdata')) for _ in range(2)]
  assert all(type(source) is ThreadSource for source in sources)
  expected = next(make_source(split, make_config('threads')).batches(3))
  jax.tree.map(np.testing.assert_array_equal, next(sources[0].batches(3)), expected)
  assert len(lines) == 1 and "TensorFlow is not installed, so the loader 'threads' replaces" in lines[0]
  assert 'pip install "tensorflow' in lines[0]


@pytest.mark.parametrize('suffix', ['bmp', 'webp'])
def test_images_of_every_format_are_read(tmp_path, loader, suffix, lines):
  write_market(tmp_path)
  path = tmp_path / 'bounding_box_train' / TRAIN[1]
  with Image.open(path) as image:
    image.save(path, suffix)
  other = path.with_suffix(f'.{suffix}')
  path.rename(other)
  split = read_layout(tmp_path).train
  assert str(other) in split.paths
  source = make_source(split, make_config(loader))
  files = np.stack([read_image(path, (16, 8)) for path in split.paths]).astype(int)
  for step, batch in enumerate(take(source.batches(0), 3)):
    assert np.abs(batch.image - files[source.sampler.batch(step)['image']]).max() <= 3
  if loader == 'tfdata':
    assert any(f'1 BMP or WebP images ({other})' in line and "'threads' replaces" in line for line in lines)


def test_processes_share_a_batch(split, loader, monkeypatch):
  complete = next(make_source(split, make_config(loader)).batches(3))
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  parts = []
  for process in (0, 1):
    monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
    parts.append(next(make_source(split, make_config(loader)).batches(3)))
  jax.tree.map(lambda a, *b: np.testing.assert_array_equal(a, np.concatenate(b)), complete, *parts)


def test_memory_works_without_tensorflow(split):
  program = (
    'import sys; sys.modules["tensorflow"] = None\n'
    'from dgnet_jax.config.schema import Config, DataConfig\n'
    'from dgnet_jax.data.registry import read_layout\n'
    'from dgnet_jax.data.sources.factory import make_source\n'
    'config = Config(batch_size=2, data=DataConfig(loader="memory"))\n'
    'index = read_layout(sys.argv[1])\n'
    'print(next(make_source(index.train, config).batches(0)).image.shape)\n'
  )
  root = os.path.dirname(os.path.dirname(split.paths[0]))
  done = subprocess.run([sys.executable, '-c', program, root], cwd=REPO, capture_output=True, text=True, check=True)
  assert done.stdout.endswith('(2, 2, 256, 128, 3)\n')
