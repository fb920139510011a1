"""Images, animations and tables of embeddings are written in the format of their suffix."""

import importlib.util
import json
import sys

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.utils import writers


@pytest.fixture
def image():
  return np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)


def test_images_have_the_format_of_their_suffix(tmp_path, image):
  for name, image_format in (('a.png', 'PNG'), ('b.jpg', 'JPEG'), ('c.JPEG', 'JPEG')):
    with Image.open(writers.save_image(tmp_path / 'new' / name, image)) as file:
      assert file.format == image_format and file.size == (16, 32)
  with Image.open(tmp_path / 'new' / 'a.png') as file:
    np.testing.assert_array_equal(np.asarray(file), image)
  small = writers.save_image(tmp_path / 'small.jpg', image, jpeg_quality=20)
  assert small.stat().st_size < (tmp_path / 'new' / 'b.jpg').stat().st_size
  assert not list(tmp_path.rglob('.*'))


def test_animation_plays_forwards_and_backwards(tmp_path):
  frames = np.stack([np.full((8, 8, 3), 50 * i, np.uint8) for i in range(5)])
  with Image.open(writers.save_animation(tmp_path / 'a.gif', frames)) as file:
    levels = []
    for i in range(file.n_frames):
      file.seek(i)
      levels.append(round(np.asarray(file.convert('RGB')).mean() / 50))
  assert levels == [0, 1, 2, 3, 4, 3, 2, 1]


@pytest.mark.parametrize('suffix', writers.EMBEDDINGS)
def test_embeddings_can_be_read_back(tmp_path, suffix):
  embeddings = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  path = tmp_path / f'e{suffix}'
  if suffix == '.parquet':
    parquet = pytest.importorskip('pyarrow.parquet')
  shares = np.float32([0.75, 0.25])
  writers.save_embeddings(path, ['ä.jpg', 'b', 'c'], embeddings, shares)
  if suffix == '.parquet':
    table = parquet.read_table(path)
    columns = {'path': table['path'].to_pylist(), 'embedding': np.array(table['embedding'].to_pylist(), np.float32)}
    columns['share'] = json.loads(table.schema.metadata[b'share'])
  else:
    columns = np.load(path)
  assert list(columns['path']) == ['ä.jpg', 'b', 'c']
  np.testing.assert_array_equal(columns['embedding'], embeddings)
  np.testing.assert_array_equal(columns['share'], shares)


def test_check_output_raises_for_files_that_cannot_be_written(tmp_path, monkeypatch):
  with pytest.raises(UserError, match=r'must end in \.png or \.jpg or \.jpeg'):
    writers.check_output('a.tif', writers.IMAGES)
  (tmp_path / 'a.png').mkdir()
  with pytest.raises(UserError, match='is a folder'):
    writers.check_output(tmp_path / 'a.png', writers.IMAGES)
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match='pip install "pyarrow>=17.0", or write .npz'):
    writers.check_output('a.parquet', writers.EMBEDDINGS)
