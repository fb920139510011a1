"""From a config to an index: what a job needs of a data set."""

import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.data.dataset import TEST, open_dataset
from dgnet_jax.errors import MissingSplit, UserError
from tests.data.folders import write_image, write_market


@pytest.fixture
def config(tmp_path):
  config = default_config()
  config.data.root = str(write_market(tmp_path))
  return config


def without_query(config, tmp_path):
  (tmp_path / 'query').rename(tmp_path / 'elsewhere')
  return config


def test_a_whole_data_set(config, tmp_path, lines):
  lines.clear()
  assert len(open_dataset(config, 'w', verify=True).train) == 6
  assert lines == [f'data: {tmp_path}']


def test_training_needs_no_query(config, tmp_path, lines):
  lines.clear()
  open_dataset(without_query(config, tmp_path), 'w')
  assert 'query (folder query): it can be trained on, not evaluated' in lines[0]


def test_evaluation_needs_query_and_gallery(config, tmp_path):
  with pytest.raises(MissingSplit, match=r'has no images of query \(folder query\)') as error:
    open_dataset(without_query(config, tmp_path), 'w', needs=TEST)
  assert str(tmp_path) in str(error.value)


def test_evaluation_needs_no_train(config, tmp_path):
  (tmp_path / 'bounding_box_train').rename(tmp_path / 'elsewhere')
  assert len(open_dataset(config, 'w', needs=TEST).query) == 2
  with pytest.raises(MissingSplit, match='train .folder bounding_box_train'):
    open_dataset(config, 'w')


def test_one_person_is_too_few(config, tmp_path):
  for path in (tmp_path / 'bounding_box_train').iterdir():
    path.unlink()
  for i in range(3):
    write_image(tmp_path / 'bounding_box_train' / f'0001_c1s1_{i:06d}_00.jpg')
  with pytest.raises(UserError, match='one person in the training split'):
    open_dataset(config, 'w')
