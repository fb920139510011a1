import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.training.batch_sizes import check_batch_sizes


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
