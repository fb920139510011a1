"""tf.data: decoding as in the release, one endless pipeline, errors and a clean end."""

import itertools
import os
import subprocess
import sys
import time

import numpy as np
from PIL import ExifTags, Image
import pytest

from dgnet_jax.data.images import read_header, read_unresized
from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources import tfdata
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.data.sources.tfdata import decode_and_resize, import_tensorflow
from dgnet_jax.errors import UserError
from tests.conftest import REPO
from tests.data.folders import TRAIN, write_market
from tests.data.sources.test_sources import make_config

pytest.importorskip('tensorflow', exc_type=ImportError)


@pytest.fixture(scope='module')
def tf():
  return import_tensorflow()


@pytest.fixture
def split(tmp_path):
  return read_layout(write_market(tmp_path)).train


@pytest.mark.parametrize('i', range(4))
def test_decoding_and_resizing_agree_with_the_release(parity_dir, tf, i, ledger):
  with np.load(parity_dir / 'preprocess.npz') as golden:
    encoded, decoded, resized = (golden[f'{name}{i}'] for name in ('file', 'decoded', 'resized'))
  same_size = decode_and_resize(tf, encoded.tobytes(), 1, decoded.shape[:2])
  np.testing.assert_array_equal(same_size, decoded)
  image = decode_and_resize(tf, encoded.tobytes(), 1, (256, 128)).numpy()
  difference = np.abs(image.astype(int) - resized)
  ledger.check('preprocess: the same with tf.data', np.mean(difference > 1), 0.01)


def test_tensorflow_sees_no_accelerator(tf):
  assert tf.config.get_visible_devices('GPU') == []


def test_a_long_run_uses_one_pipeline(split, tf, monkeypatch):
  """A pipeline that is rebuilt starts empty, and the consumer waits for it."""
  built, prefetch = [], tf.data.Dataset.prefetch

  def spy(*arguments, **options):
    built.append(arguments)
    return prefetch(*arguments, **options)

  monkeypatch.setattr(tf.data.Dataset, 'prefetch', spy)
  source = make_source(split, make_config('tfdata', (4, 2)))
  expected = make_source(split, make_config('memory', (4, 2))).batches(0)
  for batch, other in itertools.islice(zip(source.batches(0), expected, strict=True), 600):
    assert np.abs(batch.image.astype(int) - other.image).max() <= 1
    np.testing.assert_array_equal(batch.identity, other.identity)
  assert len(built) == 1


@pytest.mark.parametrize(('threads', 'prefetch', 'batch_images'), [(1, 1, 1), (2, 4, 3), (8, 1, 3), (16, 2, 8)])
def test_the_pipeline_never_waits_for_indices(split, tf, threads, prefetch, batch_images):
  data_config = make_config('tfdata', decode_threads=threads, prefetch_batches=prefetch).data
  paths, headers = np.array([path.encode() for path in split.paths], object), [read_header(p) for p in split.paths]
  pipeline = tfdata._Pipeline(tf, paths, headers, data_config, batch_images)
  indices = np.arange(batch_images) % len(split)
  for _ in range(pipeline.batches_ahead):
    pipeline.put(indices)
  for _ in range(3):
    pipeline.put(indices)
    pipeline.take()
  time.sleep(0.2)  # until everything that can be decoded is decoded
  assert pipeline._queue.size() >= 1
  pipeline.close()


def test_a_file_damaged_during_training_is_named(split, tmp_path):
  path = tmp_path / 'bounding_box_train' / TRAIN[1]
  path.write_bytes(path.read_bytes()[:-60])
  with pytest.raises(UserError, match=TRAIN[1]):
    for _ in itertools.islice(make_source(split, make_config('tfdata')).batches(0), 6):
      pass


def test_a_program_ends_cleanly_with_open_batches(split):
  program = (
    'import sys\n'
    'from dgnet_jax.config.data_schema import DataConfig\n'
    'from dgnet_jax.config.schema import Config\n'
    'from dgnet_jax.data.registry import read_layout\n'
    'from dgnet_jax.data.sources.factory import make_source\n'
    'config = Config(batch_size=2, data=DataConfig(loader="tfdata"))\n'
    'batches = make_source(read_layout(sys.argv[1]).train, config).batches(0)\n'
    'print(next(batches).image.shape)\n'
  )
  root = os.path.dirname(os.path.dirname(split.paths[0]))
  command = [sys.executable, '-c', program, root]
  done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)
  assert (done.returncode, done.stdout) == (0, '(2, 2, 256, 128, 3)\n'), done.stderr


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_that_of_pillow(tf, tmp_path, orientation):
  """Lossless and at its own size, so that every pixel can be compared."""
  path = tmp_path / 'x.png'
  pixels = np.random.default_rng(orientation).integers(0, 256, (5, 3, 3), np.uint8)
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  Image.fromarray(pixels).save(path, exif=exif)
  expected = read_unresized(str(path))
  read = decode_and_resize(tf, path.read_bytes(), read_header(str(path)).orientation, expected.shape[:2]).numpy()
  np.testing.assert_array_equal(read, expected)
