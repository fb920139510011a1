"""Records of TensorFlow Datasets: the same index, images and batches as from the files."""

import io
import itertools
import json
import shutil

import jax
import numpy as np
from PIL import Image
import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.validation import validate
from dgnet_jax.data import remote
from dgnet_jax.data.check import scan_files
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.image_bytes import is_record, read_contents
from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.errors import ConfigError, UserError
from tests.data.fakes import write_fake
from tests.data.folders import write_market
from tests.data.sources.test_sources import make_config


def silent(line):
  del line


@pytest.fixture(scope='module')
def builders():
  pytest.importorskip('tensorflow_datasets')
  pytest.importorskip('tensorflow', exc_type=ImportError)
  from dgnet_jax.data import tfds_builders

  return tfds_builders


@pytest.fixture(scope='module')
def prepared(builders, tmp_path_factory):
  """Folders of files and of records of one data set."""
  folder = tmp_path_factory.mktemp('prepared')
  (folder / 'files').mkdir()
  files = write_market(folder / 'files')
  builder = builders.Market1501(data_dir=folder / 'tfds', file_format='array_record')
  download = builders.tfds.download.DownloadConfig(manual_dir=str(files))
  builder.download_and_prepare(download_config=download)
  return files, folder / 'tfds' / 'market1501' / '1.0.0'


def test_the_index_is_that_of_the_files(prepared):
  raw, records = (read_layout(folder) for folder in prepared)
  assert (raw.name, records.name) == ('market1501', 'tfds')
  assert records.identity_names == raw.identity_names and records.camera_names == raw.camera_names
  for name, split in raw.splits.items():
    other = records.splits[name]
    np.testing.assert_array_equal(other.identity, split.identity)
    np.testing.assert_array_equal(other.camera, split.camera)
    for path, address in zip(split.paths, other.paths, strict=True):
      assert is_record(address) and not is_record(path)
      assert address.rpartition('/')[2] == path.rpartition('/')[2]
      assert read_contents(address) == read_contents(path)


@pytest.mark.parametrize('loader', ['memory', 'threads'])
def test_batches_are_those_of_the_files(prepared, loader):
  raw, records = (
    list(itertools.islice(make_source(read_layout(folder).train, make_config(loader)).batches(3), 4))
    for folder in prepared
  )
  jax.tree.map(np.testing.assert_array_equal, raw, records)


def test_tfds_loads_it_by_name(builders, prepared):
  files, folder = prepared
  source = builders.tfds.data_source('market1501', split='train', data_dir=folder.parent.parent)
  train = read_layout(files).train
  with Image.open(train.paths[2]) as image:
    np.testing.assert_array_equal(source[2]['image'], np.asarray(image.convert('RGB')))
  assert (source[2]['identity'], source[2]['camera']) == (train.identity[2], train.camera[2])


@pytest.mark.parametrize('layout', ['dukemtmc', 'msmt17', 'cuhk03', 'veri776'])
def test_every_data_set_has_a_builder(builders, layout, tmp_path):
  files = write_fake(tmp_path / 'files', layout)
  builder = builders.tfds.builder(layout, data_dir=tmp_path / 'tfds', file_format='array_record')
  builder.download_and_prepare(download_config=builders.tfds.download.DownloadConfig(manual_dir=str(files)))
  raw, records = read_layout(files, layout), read_layout(builder.data_dir)
  assert [len(split) for split in records.splits.values()] == [len(split) for split in raw.splits.values()]
  np.testing.assert_array_equal(records.train.classes, raw.train.classes)
  assert records.identity_names == raw.identity_names


def test_own_images_become_records_by_a_command(builders, tmp_path, capsys):
  for person in ('Anna', 'Bo'):
    for camera in '12':
      path = tmp_path / 'own' / 'train' / person / f'door{camera}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('RGB', (8, 16), (10 * int(camera), 0, 0)).save(path)
  pattern = r'--config.data.camera_pattern=door(?P<camera>\d)'
  command = ['prepare', 'to-tfds', f'folders={tmp_path / "own"}', f'--out={tmp_path / "tfds"}', pattern]
  main(command)
  folder = tmp_path / 'tfds' / 'folders' / '1.0.0'
  assert f'--config.data.root={folder}' in capsys.readouterr().out
  index = read_layout(folder)
  assert index.identity_names[1] == 'Anna' and index.num_cameras == 2 and index.num_identities == 2
  with pytest.raises(SystemExit):
    main(command)
  assert 'is there already' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    main(['prepare', 'to-tfds', f'tfds={folder}', f'--out={tmp_path / "again"}'])
  assert 'layout tfds cannot be prepared' in capsys.readouterr().err


def test_a_wrong_folder_is_told(builders, tmp_path):
  builder = builders.Market1501(data_dir=tmp_path / 'tfds', file_format='array_record')
  with pytest.raises(AssertionError, match=f'--manual_dir: {tmp_path}.*Market-1501'):
    builder.download_and_prepare(download_config=builders.tfds.download.DownloadConfig(manual_dir=str(tmp_path)))


def test_data_can_be_checked(prepared):
  index = read_layout(prepared[1])
  scan = scan_files(index, threads=2)
  assert not scan.bad and (scan.size_hw > 0).all()


def test_damaged_records_are_told(prepared, tmp_path):
  copy = shutil.copytree(prepared[1], tmp_path / 'copy')
  address = read_layout(copy).train.paths[0]
  next(copy.glob('*train*')).write_bytes(b'nothing')
  with pytest.raises(UserError, match='record|prepared'):
    read_contents(address)
  for content, message in (('{', 'cannot be read'), ('{"train": {"path": ["a"]}}', 'prepare'), ('{}', 'no split of')):
    (copy / 'metadata.json').write_text(content)
    with pytest.raises(UserError, match=message):
      read_layout(copy, 'tfds')


def test_config_names_the_loaders_for_records():
  config = default_config()
  config.data.update(layout='tfds', root='x')
  with pytest.raises(ConfigError, match='data.loader: tfdata reads files.*threads or memory'):
    validate(config)
  config.data.update(layout='market1501', root='gs://bucket/x')
  with pytest.raises(ConfigError, match='data.root: only prepared data sets'):
    validate(config)


class Bucket:
  """A folder that looks like one on object storage."""

  def __init__(self, path):
    self._path, self.name = path, path.name

  def iterdir(self):
    return map(Bucket, self._path.iterdir())

  def is_file(self):
    return self._path.is_file()

  def stat(self):
    return type('Stat', (), {'length': self._path.stat().st_size})

  def open(self, mode):
    return io.BytesIO(self._path.read_bytes())


def test_object_storage_is_copied_once(prepared, tmp_path, monkeypatch):
  from etils import epath

  real = epath.Path
  monkeypatch.setattr(epath, 'Path', lambda path: Bucket(prepared[1]) if str(path).startswith('gs:') else real(path))
  config, lines = default_config(), []
  config.data.update(layout='tfds', root='gs://bucket/market1501/1.0.0', loader='threads')
  validate(config)
  index = open_dataset(config, tmp_path)
  copy = tmp_path / 'data_cache' / 'gs' / 'bucket' / 'market1501' / '1.0.0'
  assert index.root == str(copy) and any(line.startswith('copying') for line in lines)
  assert read_contents(index.train.paths[0]) == read_contents(read_layout(prepared[1]).train.paths[0])
  shard = next(copy.glob('*train*'))
  shard.write_bytes(shard.read_bytes()[:-1])
  (copy / 'features.json').write_text(json.dumps({}))
  lines.clear()
  open_dataset(config, tmp_path)
  assert any(line.startswith('copying 2 files') for line in lines)
  lines.clear()
  open_dataset(config, tmp_path)
  assert not any(line.startswith('cop') for line in lines)


def test_an_empty_bucket_is_told(tmp_path, monkeypatch):
  from etils import epath

  (tmp_path / 'empty').mkdir()
  monkeypatch.setattr(epath, 'Path', lambda root: Bucket(tmp_path / 'empty'))
  with pytest.raises(UserError, match='gs://bucket/x: no files there'):
    remote.local_copy('gs://bucket/x', tmp_path)
