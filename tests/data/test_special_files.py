"""Pipes, devices, folders, missing files and names with a zero byte in place of files: one error, without waiting."""

import dataclasses
import io
import json
import pathlib

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.config.loading import changed_fields
from dgnet_jax.config.schema import Config
from dgnet_jax.data import image_lists, images, layouts, prepare
from dgnet_jax.data.check import scan_files
from dgnet_jax.data.image_sets import read_image_set
from dgnet_jax.data.readers import flat
from dgnet_jax.data.registry import read_dataset, read_layout
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.data.synthetic.manifest import read_manifest
from dgnet_jax.data.verification import verify_images
from dgnet_jax.errors import UserError
from dgnet_jax.interop.pretrained import read_weights
from dgnet_jax.interop.release.config import read_yaml
from dgnet_jax.plots.curves import read_metrics
from dgnet_jax.serving.images import decode_upload
from dgnet_jax.training.metrics import MetricWriter
from dgnet_jax.training.teacher_store import read_description
from tests.data.folders import write_image, write_market
from tests.data.jpeg_files import many_scans
from tests.special_files import SPECIAL, make_special

IMAGE_READERS = {
  'read': lambda path: images.read_image(path, (8, 4)),
  'verify': images.verify_image,
  'orientation': images.read_header,
  'api': image_lists.as_image_list,
  'run': lambda path: verify_images([path], threads=1, cache_file=image_cache(path)),
}


def image_cache(path):
  return pathlib.Path(path.replace('\0', '')).with_name('cache.json')


@pytest.mark.parametrize('reader', IMAGE_READERS)
@pytest.mark.parametrize('kind', SPECIAL)
def test_images(tmp_path, kind, reader):
  path = make_special(tmp_path / 'x.jpg', kind)
  with pytest.raises(UserError, match='no images in this folder' if (kind, reader) == ('folder', 'api') else 'x.jpg'):
    IMAGE_READERS[reader](path)


# What reads each file: of the data set, of the run, and of the release.
READERS = {
  'list_train.txt': lambda path: (
    (path.parent / 'train').mkdir(),
    read_layout(path.parent, 'msmt17'),
  ),
  'truth.json': lambda path: read_manifest(path.parent),
  'metadata.json': lambda path: read_dataset(DataConfig(layout='tfds', root=str(path.parent))),
  'table.csv': lambda path: read_dataset(DataConfig(layout='csv', root=str(path))),
  'manifest.csv': lambda path: read_image_set(str(path.parent)),
  'config.json': lambda path: changed_fields(path, Config()),
  'teacher.json': lambda path: read_description(path.parent),
  'metrics.jsonl': lambda path: MetricWriter(path.parent),
  'curves.jsonl': read_metrics,
  'config.yaml': read_yaml,
  'weights.pth': read_weights,
  'weights.safetensors': read_weights,
}


@pytest.mark.parametrize('name', READERS)
@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
def test_other_files(tmp_path, kind, name):
  path = tmp_path / name
  make_special(path, kind)
  with pytest.raises(UserError):
    READERS[name](path)


def write_table(tmp_path, *paths):
  write_image(tmp_path / 'good.jpg')
  rows = [f'{path},{1 + i // 2},{i % 2},train' for i, path in enumerate(['good.jpg', 'good.jpg', *paths])]
  (tmp_path / 'table.csv').write_text('\n'.join(['path,identity,camera,split', *rows]))
  return tmp_path / 'table.csv'


@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
def test_a_row_of_a_table_is_checked_before_its_file_is_used(tmp_path, kind):
  make_special(tmp_path / 'odd.jpg', kind)
  index = read_layout(write_table(tmp_path, 'odd.jpg'))
  assert list(scan_files(index, threads=1).bad) == [2]
  for how in prepare.METHODS:
    with pytest.raises(UserError, match=rf'odd\.jpg: {how} to .* failed \({SPECIAL[kind]}\)'):
      prepare.to_release(index, tmp_path / 'out', how=how)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
@pytest.mark.parametrize('loader', ['threads', 'memory', 'device', 'tfdata'])
def test_training_does_not_wait_for_it(tmp_path, kind, loader):
  make_special(tmp_path / 'odd.jpg', kind)
  index = read_layout(write_table(tmp_path, 'odd.jpg'))
  config = Config(batch_size=2, data=DataConfig(loader=loader, image_size_hw=(8, 4)))
  with pytest.raises(UserError, match=r'odd\.jpg: unreadable'):
    for _, _ in zip(range(9), make_source(index.train, config).batches(0), strict=False):
      pass


def test_a_row_with_a_zero_byte_is_named(tmp_path):
  with pytest.raises(UserError, match=r'1 wrong rows: line 4: a path with a zero byte, od\\x00d.jpg'):
    read_layout(write_table(tmp_path, 'od\0d.jpg'))


LINES = ['a\0.jpg 3', f'a.jpg {"9" * 5000}', f'{"a" * 5000}.jpg 3', f'x_y_{"9" * 5000}_.jpg 3']


@pytest.mark.parametrize('line', LINES, ids=['zero byte', 'label', 'name', 'camera'])
def test_a_line_of_a_list_with_a_zero_byte_or_a_long_number_is_named(tmp_path, line):
  (tmp_path / 'train').mkdir()
  (tmp_path / 'list_train.txt').write_text(line)
  with pytest.raises(UserError, match=r'list_train\.txt, line 1') as error:
    read_layout(tmp_path, 'msmt17')
  assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
  'table',
  [
    {'path': [1], 'identity': ['a'], 'camera': ['1']},
    {'path': ['a'], 'identity': [None], 'camera': ['1']},
    {'path': ['a'], 'identity': [['a']], 'camera': ['1']},
    {'path': ['a'], 'identity': ['a', 'b'], 'camera': ['1']},
    {'path': 'a', 'identity': 'a', 'camera': '1'},
    [],
  ],
)
def test_metadata_of_other_types_is_refused(tmp_path, table):
  (tmp_path / 'metadata.json').write_text(json.dumps({'train': table}))
  with pytest.raises(UserError, match='not written by the builders'):
    read_dataset(DataConfig(layout='tfds', root=str(tmp_path)))


class TestScans:
  def test_files_of_encoders_are_read(self, tmp_path):
    (tmp_path / 'x.jpg').write_bytes(many_scans((40, 30), 32))
    assert images.read_unresized(str(tmp_path / 'x.jpg')).shape == (40, 30, 3)

  @pytest.mark.parametrize('count', [33, 300])
  def test_many_scans_are_refused_by_every_reader(self, tmp_path, count):
    (tmp_path / 'x.jpg').write_bytes(many_scans((40, 30), count))
    for read in IMAGE_READERS.values():
      with pytest.raises(UserError, match=r'x\.jpg: a JPEG of more than 32 scans'):
        read(str(tmp_path / 'x.jpg'))
    with pytest.raises(UserError, match='the upload: a JPEG of more than 32 scans'):
      decode_upload((tmp_path / 'x.jpg').read_bytes(), 'the upload')

  def test_tfdata_does_not_decode_them(self, tmp_path):
    (tmp_path / 'odd.jpg').write_bytes(many_scans((40, 30), 300))
    index = read_layout(write_table(tmp_path, 'odd.jpg'))
    config = Config(batch_size=2, data=DataConfig(loader='tfdata', image_size_hw=(8, 4)))
    with pytest.raises(UserError, match='more than 32 scans'):
      next(make_source(index.train, config).batches(0))

  def test_what_looks_like_scans_in_metadata_does_not_count(self, tmp_path):
    (tmp_path / 'x.jpg').write_bytes(many_scans((40, 30), 12, metadata=b'\xff\xda\0\2' * 1000))
    images.verify_image(str(tmp_path / 'x.jpg'))

  def test_scans_cannot_be_hidden(self, tmp_path):
    content = many_scans((40, 30), 40)
    for hidden in (
      content.replace(b'\xff\xda', b'\xff\xff\xff\xda'),
      content.replace(b'\xff\xda', b'\xff\x05\xff\xda'),
    ):
      (tmp_path / 'x.jpg').write_bytes(hidden)
      with pytest.raises(UserError, match='more than 32 scans'):
        images.verify_image(str(tmp_path / 'x.jpg'))


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
  monkeypatch.setattr(images, 'MAX_PIXELS', 100)
  for size, is_read in (((10, 10), True), ((10, 11), False)):
    file = io.BytesIO()
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(file, 'png')
    (tmp_path / 'x.png').write_bytes(file.getvalue())
    for read in IMAGE_READERS.values():
      if is_read:
        read(str(tmp_path / 'x.png'))
      else:
        with pytest.raises(UserError, match=r'x\.png: 11 x 10 pixels'):
          read(str(tmp_path / 'x.png'))


def test_a_list_of_names_that_is_a_pipe(tmp_path):
  layout = dataclasses.replace(layouts.LAYOUTS['market1501'], name_lists={'query': 'names.txt'})
  make_special(write_market(tmp_path) / 'names.txt', 'pipe')
  with pytest.raises(UserError, match=r'names\.txt: cannot be read \(not a regular file\)'):
    flat.read(layout, tmp_path, DataConfig())
