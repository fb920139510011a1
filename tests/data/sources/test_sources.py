"""All sources of training batches yield the same images in the same order."""

import contextlib
import dataclasses
import itertools
import os
import re
import subprocess
import sys
import types

import jax
import numpy as np
from PIL import Image
import pytest

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.config.network_schema import TeacherConfig
from dgnet_jax.config.schema import Config
from dgnet_jax.data.images import read_image
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources import factory, in_memory, on_device
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.data.sources.threaded import ThreadSource
from dgnet_jax.errors import UserError
from dgnet_jax.sharding import batch_sharding, local_rows, make_mesh, replicated
from tests.conftest import REPO
from tests.data.folders import TRAIN, write_market

LOADERS = ('memory', 'threads', 'tfdata', 'device')


@pytest.fixture(params=LOADERS)
def loader(request):
  if request.param == 'tfdata':
    pytest.importorskip('tensorflow', exc_type=ImportError)
  with on_devices(2):  # of the tests' eight: the batches here are small
    yield request.param


@contextlib.contextmanager
def on_devices(number):
  """The device source uses so many devices; yields their mesh."""
  mesh = make_mesh(jax.devices()[:number])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(on_device, 'make_mesh', lambda: mesh)
    yield mesh


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
  with on_devices(2):
    sources = [make_source(split, make_config(loader, (256, 128))) for loader in LOADERS]
  memory, threads, tfdata, device = (next(source.batches(5)) for source in sources)
  for other in (threads, device):  # all three decode with Pillow
    jax.tree.map(np.testing.assert_array_equal, memory, other)
  np.testing.assert_array_equal(memory.identity, tfdata.identity)
  for a, b in ((memory.image, tfdata.image), (memory.positive, tfdata.positive)):
    assert np.mean(np.abs(a.astype(int) - b) <= 1) > 0.999


def test_batches_of_identities_hold_the_images_of_the_sampler(split, loader, monkeypatch):
  config = make_config(loader, images_per_identity=2)
  teacher = dataclasses.replace(config.teacher, images_per_identity=2)
  config = dataclasses.replace(config, batch_size=4, teacher=teacher)
  source = make_source(split, config)
  files = np.stack([read_image(path, (16, 8)) for path in split.paths]).astype(int)
  batch, (image, identity) = next(source.batches(3)), next(source.single_batches(3))
  assert np.abs(batch.image - files[source.sampler.batch(3)['image']]).max() <= 3
  assert np.abs(image - files[source.single_sampler.batch(3)['image']]).max() <= 3
  for shown in (*np.asarray(batch.identity).T, np.asarray(identity)):
    assert np.unique(shown, return_counts=True)[1].tolist() == [2, 2]
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  parts = []
  for process in (0, 1):
    monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
    parts.append(make_source(split, config).sampler.batch(3)['image'])
  np.testing.assert_array_equal(np.concatenate(parts), source.sampler.batch(3)['image'])


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


@pytest.mark.parametrize('number', [1, 2, 4])
def test_device_yields_the_batches_of_memory_on_any_number_of_devices(split, number):
  config, memory = dataclasses.replace(make_config('device'), batch_size=4), make_config('memory')
  with on_devices(number) as mesh:
    source, other = make_source(split, config), make_source(split, dataclasses.replace(memory, batch_size=4))
  batches, others = (take(s.batches(2), 3) + take(s.single_batches(2), 3) for s in (source, other))
  jax.tree.map(np.testing.assert_array_equal, batches, others)
  leaves = jax.tree.leaves(batches)
  assert all(isinstance(leaf, jax.Array) and leaf.sharding == batch_sharding(mesh) for leaf in leaves)
  # The feed adds nothing, and what it gives is what the step gets from any other loader.
  with contextlib.closing(device_batches(iter(batches), mesh)) as fed:
    assert all(a is b for a, b in zip(jax.tree.leaves(list(fed)), leaves, strict=True))
  with contextlib.closing(device_batches(iter(others), mesh)) as fed:
    for a, b in zip(jax.tree.leaves(list(fed)), leaves, strict=True):
      assert jax.typeof(a) == jax.typeof(b) and a.sharding == b.sharding
  for leaf, host in zip(leaves, jax.tree.leaves(others), strict=True):
    np.testing.assert_array_equal(local_rows(leaf), local_rows(host))


def test_device_gathers_on_each_device_and_only_indices_travel(split, monkeypatch):
  with on_devices(2) as mesh:
    source = make_source(split, make_config('device'))
  assert source._pixels.sharding == replicated(mesh) and source._pixels.shape == (6, 16 * 8 * 3)
  indices = jax.device_put(np.zeros((2, 2), np.int32), batch_sharding(mesh))
  program = source._gather.lower(source._pixels, {'image': indices, 'positive': indices}).compile().as_text()
  assert not re.findall(r'all-(?:reduce|gather|to-all)|collective-permute|reduce-scatter', program)
  travelled, place = [], on_device.place_rows
  monkeypatch.setattr(on_device, 'place_rows', lambda rows, *rest: place(travelled.append(rows) or rows, *rest))
  next(source.batches(0))
  (rows,) = travelled
  assert {name: (value.shape, value.dtype) for name, value in rows.items()} == dict.fromkeys(
    ('image', 'positive', 'identity'), ((2, 2), np.dtype(np.int32))
  )


def test_device_needs_a_batch_that_divides_among_the_devices(split):
  with on_devices(3):
    source = make_source(split, make_config('device'))
  for batches, size in ((source.batches(0), 2), (source.single_batches(0), 4)):
    with pytest.raises(UserError, match=f'a batch of {size} is not divisible by 3 devices; change batch_size'):
      next(batches)


def test_device_logs_its_size_and_refuses_too_much(split, monkeypatch, lines):
  make_source(split, make_config('device', (1024, 512)))
  assert lines == ['holding 6 images of 1024x512 on each of 8 device(s): 9 MiB']
  monkeypatch.delattr(in_memory, 'read_image')  # refused before anything is decoded
  monkeypatch.setattr(on_device, '_device_memory', lambda device: 1000 if device.id == 7 else float('inf'))
  with pytest.raises(UserError, match="the loaders 'memory', 'threads' and 'tfdata' .data.loader. keep only batches"):
    make_source(split, make_config('device'))
  monkeypatch.undo()
  monkeypatch.setattr(in_memory, '_physical_memory', lambda: 1000)
  with pytest.raises(UserError, match="the loaders 'tfdata' and 'threads' .data.loader. do not hold them"):
    make_source(split, make_config('device'))


@pytest.mark.parametrize(
  ('stats', 'expected'), [(None, float('inf')), ({'bytes_limit': 8, 'bytes_in_use': 3}, 5), ({}, float('inf'))]
)
def test_memory_of_a_device_may_be_unknown(stats, expected):
  device = types.SimpleNamespace(memory_stats=lambda: stats)
  assert on_device._device_memory(device) == expected


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
  config = dataclasses.replace(make_config(loader), batch_size=4)
  complete = next(make_source(split, config).batches(3))
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  parts = []
  for process in (0, 1):
    monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
    parts.append(next(make_source(split, config).batches(3)))
  jax.tree.map(lambda a, *b: np.testing.assert_array_equal(a, np.concatenate(b)), complete, *parts)


def test_memory_works_without_tensorflow(split):
  program = (
    'import sys; sys.modules["tensorflow"] = None\n'
    'from dgnet_jax.config.data_schema import DataConfig\n'
    'from dgnet_jax.config.schema import Config\n'
    'from dgnet_jax.data.registry import read_layout\n'
    'from dgnet_jax.data.sources.factory import make_source\n'
    'config = Config(batch_size=2, data=DataConfig(loader="memory"))\n'
    'index = read_layout(sys.argv[1])\n'
    'print(next(make_source(index.train, config).batches(0)).image.shape)\n'
  )
  root = os.path.dirname(os.path.dirname(split.paths[0]))
  done = subprocess.run([sys.executable, '-c', program, root], cwd=REPO, capture_output=True, text=True, check=True)
  assert done.stdout.endswith('(2, 2, 256, 128, 3)\n')
