import pytest

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.config.schema import Config, ReidConfig, TeacherConfig
from dgnet_jax.errors import UserError
from dgnet_jax.training.batch_sizes import check_batch_sizes, check_identities, check_parts


def test_batches_that_fit_pass():
  check_batch_sizes({'batch_size': 8, 'teacher.batch_size': 24}, num_images=24, num_devices=8)


@pytest.mark.parametrize(
  ('sizes', 'num_images', 'num_devices', 'message'),
  [
    ({'batch_size': 6}, 100, 8, 'batch_size: 6 does not divide among 8 devices. Use a multiple of 8 up to 96.'),
    ({'batch_size': 101}, 100, 1, 'batch_size: 101 is above the number of training images, 100. Use at most 100.'),
    (
      {'batch_size': 6, 'teacher.batch_size': 104},
      100,
      8,
      'batch_size: 6 does not divide among 8 devices; teacher.batch_size: 104 is above the number of training images, '
      '100. Use a multiple of 8 up to 96.',
    ),
    (
      {'batch_size': 8},
      5,
      8,
      'batch_size: 8 is above the number of training images, 5. There are fewer training images (5) than devices: use '
      'fewer devices.',
    ),
  ],
)
def test_error_names_every_field_and_a_solution(sizes, num_images, num_devices, message):
  with pytest.raises(UserError) as error:
    check_batch_sizes(sizes, num_images=num_images, num_devices=num_devices)
  assert str(error.value) == message


def with_identities(joint, teacher):
  """Batches of 16 identities for the main job and of 8 for the teacher."""
  return Config(
    batch_size=16 * joint,
    data=DataConfig(images_per_identity=joint),
    teacher=TeacherConfig(batch_size=8 * teacher, images_per_identity=teacher),
  )


def test_batches_of_as_many_identities_as_there_are_pass():
  check_identities(with_identities(2, 4), num_identities=16, fields=['batch_size', 'teacher.batch_size'])
  check_identities(with_identities(2, 4), num_identities=8, fields=['teacher.batch_size'])
  check_identities(Config(), num_identities=1, fields=['batch_size', 'teacher.batch_size'])


def test_too_few_identities_are_refused_with_a_solution():
  with pytest.raises(UserError) as error:
    check_identities(with_identities(2, 4), num_identities=7, fields=['batch_size', 'teacher.batch_size'])
  assert str(error.value) == (
    'batch_size: 32 are 16 identities with 2 images each (images_per_identity), and the training images show 7. Use at '
    'most 14; teacher.batch_size: 32 are 8 identities with 4 images each (images_per_identity), and the training '
    'images show 7. Use at most 28.'
  )


@pytest.mark.parametrize(('parts', 'devices'), [(1, 8), (4, 2), (8, 1)])
def test_devices_with_whole_groups_of_each_part_pass(parts, devices):
  check_parts(Config(batch_size=64, micro_batches=parts, reid=ReidConfig(batch_norm_group=8)), num_devices=devices)


def test_devices_that_would_share_groups_of_a_part_are_refused():
  config = Config(batch_size=64, micro_batches=4, reid=ReidConfig(batch_norm_group=8))
  with pytest.raises(UserError, match='64 is not a multiple of 256, which micro_batches=4 needs on 8 devices'):
    check_parts(config, num_devices=8)
