"""What is checked before a training job starts."""

import jax
import pytest

from dgnet_jax.data import verification
from dgnet_jax.errors import UserError
from dgnet_jax.training.run_record import read_starts, recorded
from dgnet_jax.training.training_data import open_training_data
from tests.data.folders import write_market
from tests.tiny_run import frozen, tiny_config


@pytest.fixture
def config(tmp_path):
  (tmp_path / 'market').mkdir()
  config = tiny_config()
  config.data.update(layout='market1501', root=str(write_market(tmp_path / 'market')), loader='threads')
  config.batch_size = config.teacher.batch_size = 8
  return config


def test_batch_sizes_are_checked_before_any_image_is_verified(config, tmp_path, monkeypatch):
  monkeypatch.setattr(verification, 'verify_image', lambda path: pytest.fail('verified'))
  with pytest.raises(UserError, match='batch_size: 8 is above .* 6; teacher.batch_size: 8 is above .* 6'):
    open_training_data(frozen(config), tmp_path / 'run')


def test_teacher_alone_needs_only_its_own_batch_size(config, tmp_path):
  with pytest.raises(UserError, match=r'^teacher\.batch_size: 8 is above'):
    open_training_data(frozen(config), tmp_path / 'run', teacher_only=True)


def test_identities_are_counted_before_any_image_is_verified(config, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  monkeypatch.setattr(verification, 'verify_image', lambda path: pytest.fail('verified'))
  (tmp_path / 'two').mkdir()
  images = [f'{person:04}_c1s1_{number:06}_00.jpg' for person in (1, 2) for number in range(4)]
  config.data.root = str(write_market(tmp_path / 'two', train=images))
  config.batch_size, config.data.images_per_identity, config.teacher.batch_size = 6, 2, 2
  with pytest.raises(UserError, match='^batch_size: 6 are 3 identities with 2 images each .* show 2'):
    open_training_data(frozen(config), tmp_path / 'run')


def test_the_data_of_a_recorded_start_are_in_its_record(config, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  config.batch_size = config.teacher.batch_size = 2
  (tmp_path / 'run').mkdir()
  with recorded(tmp_path / 'run', 'train', frozen(config)):
    index = open_training_data(frozen(config), tmp_path / 'run', teacher_only=True)
    (start,) = read_starts(tmp_path / 'run')
  assert start['data']['num_images'] == len(index.train) and start['data']['num_identities'] == index.num_identities
