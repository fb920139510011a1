"""From a config to an index: required splits, and verification of the images."""

import pytest

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data import verification
from dgnet_jax.data.dataset import TEST_SPLITS, open_dataset
from dgnet_jax.errors import MissingSplit, UserError
from tests.data.folders import write_image, write_market
from tests.data.reading import verified


@pytest.fixture
def root(tmp_path):
  (tmp_path / 'market').mkdir()
  return write_market(tmp_path / 'market')


@pytest.fixture
def data_config(root):
  return DataConfig(root=str(root), decode_threads=2)


@pytest.fixture
def decoded(monkeypatch):
  """The paths of the images that are decoded to verify them."""
  paths, verify_image = [], verification.verify_image

  def spy(path):
    paths.append(path)
    verify_image(path)

  monkeypatch.setattr(verification, 'verify_image', spy)
  return paths


def test_complete_dataset_logs_only_its_root(data_config, root, tmp_path, lines):
  assert len(verified(data_config, tmp_path / 'run').train) == 6
  assert lines == [f'data: {root}']


def test_missing_query_is_a_warning_for_training(data_config, root, tmp_path, lines):
  (root / 'query').rename(root / 'elsewhere')
  open_dataset(data_config, tmp_path / 'run')
  assert 'the run can be trained but not evaluated' in lines[0] and 'no images of query (folder query)' in lines[0]


def test_queries_without_any_match_are_a_warning_for_training(data_config, root, tmp_path, lines):
  for name in ('0003_c5s1_000251_00.jpg', '0004_c1s1_000251_00.jpg'):
    (root / 'bounding_box_test' / name).unlink()
  open_dataset(data_config, tmp_path / 'run')
  assert 'the run can be trained but not evaluated' in lines[0] and 'none of the 2 queries has a match' in lines[0]


def test_people_in_train_and_test_are_a_warning_for_training(data_config, root, tmp_path, lines):
  write_image(root / 'bounding_box_test' / '0002_c3s1_000001_00.jpg')
  open_dataset(data_config, tmp_path / 'run')
  assert len(lines) == 2 and '1 identities are in train and in the test splits (0002)' in lines[0]


def test_missing_query_is_an_error_for_evaluation(data_config, root, tmp_path):
  (root / 'query').rename(root / 'elsewhere')
  with pytest.raises(MissingSplit, match=r'has no images of query \(folder query\)') as error:
    open_dataset(data_config, tmp_path / 'run', needs=TEST_SPLITS)
  assert str(root) in str(error.value)


def test_missing_train_is_an_error_for_training_only(data_config, root, tmp_path):
  (root / 'bounding_box_train').rename(root / 'elsewhere')
  assert len(open_dataset(data_config, tmp_path / 'run', needs=TEST_SPLITS).query) == 2
  with pytest.raises(MissingSplit, match='train .folder bounding_box_train'):
    open_dataset(data_config, tmp_path / 'run')


def test_single_training_identity_is_an_error(data_config, root, tmp_path):
  for path in (root / 'bounding_box_train').iterdir():
    path.unlink()
  for i in range(3):
    write_image(root / 'bounding_box_train' / f'0001_c1s1_{i:06d}_00.jpg')
  with pytest.raises(UserError, match='only one identity in the training split'):
    open_dataset(data_config, tmp_path / 'run')


def test_second_start_verifies_no_image_again(data_config, tmp_path, decoded):
  verified(data_config, tmp_path / 'run')
  assert len(decoded) == 12
  verified(data_config, tmp_path / 'run')
  assert len(decoded) == 12
  verified(data_config, tmp_path / 'another run')
  assert len(decoded) == 24


@pytest.mark.parametrize('loader', ['memory', 'device'])
def test_some_loaders_leave_training_images_to_the_source(root, tmp_path, decoded, loader):
  verified(DataConfig(root=str(root), loader=loader), tmp_path / 'run')
  assert len(decoded) == 6 and not any('bounding_box_train' in path for path in decoded)
