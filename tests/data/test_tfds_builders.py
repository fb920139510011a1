"""Records of TensorFlow Datasets: the same index, images and batches as from the files."""

from concurrent.futures import ThreadPoolExecutor
import itertools
import json
import pickle
import shutil

import jax
import numpy as np
from PIL import Image
import pytest

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data import dataset, image_bytes
from dgnet_jax.data.check import scan_files
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.image_bytes import RecordAddress, read_bytes, record_address
from dgnet_jax.data.images import read_image
from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.errors import UserError
from dgnet_jax.utils.locks import LOCK_FILE, InUse, exclusive
from tests.data.fakes import write_fake
from tests.data.folders import write_images, write_market
from tests.data.reading import verified
from tests.data.sources.test_sources import make_config

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('tensorflow', exc_type=ImportError)

from dgnet_jax.data import tfds_builders  # noqa: E402 (imports TensorFlow)
from dgnet_jax.data.tfds_builders import prepare_records, tfds  # noqa: E402


def prepare_as_tfds_does(builder, files):
  """Prepares a data set as TFDS's own command does."""
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(files)))


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """The folders of the files and of the records of one data set."""
  folder = tmp_path_factory.mktemp('prepared')
  (folder / 'files').mkdir()
  files = write_market(folder / 'files')
  prepare_as_tfds_does(tfds_builders.Market1501(data_dir=folder / 'tfds', file_format='array_record'), files)
  return files, folder / 'tfds' / 'market1501' / '1.0.0'


def test_index_of_records_equals_that_of_the_files(prepared):
  raw, records = (read_layout(folder) for folder in prepared)
  assert (raw.name, records.name) == ('market1501', 'tfds')
  assert records.identity_names == raw.identity_names and records.camera_names == raw.camera_names
  for name, split in raw.splits.items():
    other = records.splits[name]
    np.testing.assert_array_equal(other.identity, split.identity)
    np.testing.assert_array_equal(other.camera, split.camera)
    for path, address in zip(split.paths, other.paths, strict=True):
      assert isinstance(address, RecordAddress) and not isinstance(path, RecordAddress)
      assert address.rpartition('/')[2] == path.rpartition('/')[2]
      assert read_bytes(address) == read_bytes(path)


@pytest.mark.parametrize('loader', ['memory', 'threads'])
def test_batches_of_records_equal_those_of_the_files(prepared, loader):
  raw, records = (
    list(itertools.islice(make_source(read_layout(folder).train, make_config(loader)).batches(3), 4))
    for folder in prepared
  )
  jax.tree.map(np.testing.assert_array_equal, raw, records)


def test_tfds_loads_the_records_by_name(prepared):
  files, folder = prepared
  source = tfds.data_source('market1501', split='train', data_dir=folder.parent.parent)
  train = read_layout(files).train
  with Image.open(train.paths[2]) as image:
    np.testing.assert_array_equal(source[2]['image'], np.asarray(image.convert('RGB')))
  assert (source[2]['identity'], source[2]['camera']) == (train.identity[2], train.camera[2])


@pytest.mark.parametrize('layout', ['dukemtmc', 'msmt17', 'cuhk03', 'veri776'])
def test_every_public_dataset_can_be_prepared(layout, tmp_path):
  files = write_fake(tmp_path / 'files', layout)
  builder = tfds.builder(layout, data_dir=tmp_path / 'tfds', file_format='array_record')
  prepare_as_tfds_does(builder, files)
  raw, records = read_layout(files, layout), read_layout(builder.data_dir)
  assert [len(split) for split in records.splits.values()] == [len(split) for split in raw.splits.values()]
  np.testing.assert_array_equal(records.train.classes, raw.train.classes)
  assert records.identity_names == raw.identity_names


def test_what_a_killed_preparation_left_is_removed(prepared, tmp_path):
  left = tmp_path / 'market1501' / 'incomplete.ABCDEF_1.0.0'
  left.mkdir(parents=True)
  (left / 'market1501-train.array_record-00000-of-00001').write_bytes(b'half')
  folder = prepare_records(read_layout(prepared[0]), tmp_path)
  assert [path.name for path in folder.parent.iterdir()] == ['1.0.0']


def test_full_disk_names_the_folder_that_is_written(prepared, tmp_path, monkeypatch):
  def fail(*_, **__):
    raise OSError('Not enough disk space')

  monkeypatch.setattr(tfds_builders.Market1501, 'download_and_prepare', fail)
  with pytest.raises(UserError, match=f'{tmp_path}/market1501/1.0.0: Not enough disk space'):
    prepare_records(read_layout(prepared[0]), tmp_path)


def test_two_preparations_of_one_folder_exclude_each_other(prepared, tmp_path):
  index = read_layout(prepared[0])
  with (
    exclusive(tmp_path / LOCK_FILE, 'a test'),
    ThreadPoolExecutor(1) as pool,
    pytest.raises(InUse, match='preparation'),
  ):
    pool.submit(prepare_records, index, tmp_path).result()


def test_own_images_can_be_prepared_once(tmp_path):
  write_images(tmp_path / 'own', *(f'train/{name}/door{camera}.png' for name in ('Anna', 'Bo') for camera in '12'))
  own = read_layout(tmp_path / 'own', 'folders', camera_pattern=r'door(?P<camera>\d)')
  folder = prepare_records(own, tmp_path / 'tfds')
  assert folder == tmp_path / 'tfds' / 'folders' / '1.0.0'
  index = read_layout(folder)
  assert index.identity_names[1] == 'Anna' and index.num_cameras == 2 and index.num_identities == 2
  with pytest.raises(UserError, match='already exists'):
    prepare_records(own, tmp_path / 'tfds')
  with pytest.raises(UserError, match='layout tfds cannot be prepared'):
    prepare_records(index, tmp_path / 'again')


def test_wrong_manual_folder_is_named(tmp_path):
  builder = tfds_builders.Market1501(data_dir=tmp_path / 'tfds', file_format='array_record')
  with pytest.raises(AssertionError, match=f'--manual_dir: {tmp_path}.*Market-1501'):
    prepare_as_tfds_does(builder, tmp_path)


def test_records_can_be_scanned(prepared):
  scan = scan_files(read_layout(prepared[1]), threads=2)
  assert not scan.bad and (scan.size_hw > 0).all()


def test_records_are_verified_before_training(prepared, tmp_path):
  copy = shutil.copytree(prepared[1], tmp_path / 'copy')
  data_config = DataConfig(layout='tfds', root=str(copy), loader='threads')
  verified(data_config, tmp_path / 'run')
  next(copy.glob('*train*')).write_bytes(b'damaged')
  with pytest.raises(UserError, match='6 of 12 images are unusable'):
    verified(data_config, tmp_path / 'run')


def test_damaged_records_are_an_error(prepared, tmp_path):
  copy = shutil.copytree(prepared[1], tmp_path / 'copy')
  address = read_layout(copy).train.paths[0]
  next(copy.glob('*train*')).write_bytes(b'damaged')
  with pytest.raises(UserError, match='record|prepared'):
    read_bytes(address)


@pytest.mark.parametrize(
  ('content', 'message'),
  [('{', 'cannot be read'), ('{"train": {"path": ["a"]}}', 'prepare the data set again'), ('{}', 'no split of')],
)
def test_damaged_metadata_is_an_error(tmp_path, content, message):
  (tmp_path / 'metadata.json').write_text(content)
  with pytest.raises(UserError, match=message):
    read_layout(tmp_path, 'tfds')


def test_remote_dataset_is_read_from_its_local_copy(prepared, tmp_path, monkeypatch):
  monkeypatch.setattr(dataset, 'local_copy', lambda root, cache: shutil.copytree(prepared[1], cache / 'copy'))
  data_config = DataConfig(layout='tfds', root='gs://bucket/market1501/1.0.0', loader='threads')
  index = open_dataset(data_config, tmp_path)
  assert index.root == str(tmp_path / 'data_cache' / 'copy')
  assert read_bytes(index.train.paths[0]) == read_bytes(read_layout(prepared[1]).train.paths[0])


@pytest.fixture
def planted(monkeypatch, tmp_path):
  """The name of a module that leaves a mark when it is imported."""
  (tmp_path / 'planted').mkdir()
  (tmp_path / 'planted' / 'planted_module.py').write_text(f'open({str(tmp_path / "ran")!r}, "w").close()\n')
  monkeypatch.syspath_prepend(tmp_path / 'planted')
  yield 'planted_module'
  assert not (tmp_path / 'ran').exists()


class TestForeignRecords:
  """TFDS imports the modules that a description names; descriptions that are not ours do not reach it."""

  def refused(self, folder, match):
    image_bytes._records.cache_clear()
    address = read_layout(folder).train.paths[0]
    with pytest.raises(UserError, match=match):
      read_bytes(address)

  def test_features_of_another_class(self, prepared, planted, tmp_path):
    copy = shutil.copytree(prepared[1], tmp_path / 'copy')
    text = (copy / 'features.json').read_text()
    (copy / 'features.json').write_text(
      text.replace('tensorflow_datasets.core.features.text_feature.Text', f'{planted}.Text')
    )
    assert planted in (copy / 'features.json').read_text()
    self.refused(copy, 'features.json: not what')

  def test_builder_of_another_module(self, prepared, planted, tmp_path):
    copy = shutil.copytree(prepared[1], tmp_path / 'copy')
    text = (copy / 'dataset_info.json').read_text()
    (copy / 'dataset_info.json').write_text(text.replace(image_bytes.BUILDERS_MODULE, f'{planted}.builder'))
    self.refused(copy, 'dataset_info.json: not written by')

  @pytest.mark.parametrize('name', ['features.json', 'dataset_info.json'])
  @pytest.mark.parametrize('content', ['[' * 100_000, '{', '"' + 'x' * (1 << 20) + '"', '7', '{}'])
  def test_damaged_descriptions(self, prepared, tmp_path, name, content):
    copy = shutil.copytree(prepared[1], tmp_path / 'copy')
    (copy / name).write_text(content)
    self.refused(copy, f'{name}: ')


def test_a_folder_with_an_at_sign_is_an_ordinary_folder(planted, tmp_path):
  folder = tmp_path / 'holiday' / 'train@2024'
  write_images(folder, 'a.png')
  features = {'pythonClassName': f'{planted}.Features', 'featuresDict': {'features': {}}}
  (folder.parent / 'features.json').write_text(json.dumps(features))
  (folder.parent / 'dataset_info.json').write_text(json.dumps({'name': 'x', 'version': '1.0.0'}))
  path = str(folder / 'a.png')
  assert read_bytes(path) == (folder / 'a.png').read_bytes()
  assert read_image(path, (8, 4)).shape == (8, 4, 3)


def test_addresses_survive_pickling():
  address = record_address('/data/market1501/1.0.0', 'train', 3, 'a/b.jpg')
  copy = pickle.loads(pickle.dumps(address))
  assert isinstance(copy, RecordAddress) and copy == address == '/data/market1501/1.0.0/train@000000003/b.jpg'
  assert (copy.folder, copy.split_name, copy.position) == ('/data/market1501/1.0.0', 'train', 3)
