"""Checks of the batch sizes against the numbers of devices and training images, before any long work starts."""

from collections.abc import Collection, Mapping

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError


def check_batch_sizes(sizes: Mapping[str, int], *, num_images: int, num_devices: int) -> None:
  """Checks that every batch can be drawn and split over the devices.

  Args:
    sizes: batch size by the config field that sets it.
    num_images: training images.
    num_devices: devices of all processes, among which a batch is divided equally.

  Raises:
    UserError: a batch does not divide among the devices, or takes more images than there are. The message names all
      such fields and the sizes that work.
  """
  problems = [
    f'{field}: {size} does not divide among {num_devices} devices'
    for field, size in sizes.items()
    if size % num_devices
  ]
  problems += [
    f'{field}: {size} is above the number of training images, {num_images}'
    for field, size in sizes.items()
    if size > num_images
  ]
  if not problems:
    return
  largest = num_images // num_devices * num_devices
  if largest:
    solution = f'Use a multiple of {num_devices} up to {largest}' if num_devices > 1 else f'Use at most {largest}'
  else:
    solution = f'There are fewer training images ({num_images}) than devices: use fewer devices'
  raise UserError(f'{"; ".join(problems)}. {solution}.')


def check_identities(config: Config, *, num_identities: int, fields: Collection[str]) -> None:
  """Checks that there are as many identities as batches of identities have (`images_per_identity`).

  Args:
    config: of the run.
    num_identities: identities of the training images.
    fields: those of batch_size and teacher.batch_size whose batches are drawn.

  Raises:
    UserError: there are fewer. The message names all such fields and the sizes that work.
  """
  batches = {
    'batch_size': (config.batch_size, config.data.images_per_identity),
    'teacher.batch_size': (config.teacher.batch_size, config.teacher.images_per_identity),
  }
  problems = [
    f'{field}: {size} are {size // images} identities with {images} images each (images_per_identity), and the '
    f'training images show {num_identities}. Use at most {num_identities * images}'
    for field, (size, images) in batches.items()
    if field in fields and images and size // images > num_identities
  ]
  if problems:
    raise UserError(f'{"; ".join(problems)}.')


def check_parts(config: Config, *, num_devices: int) -> None:
  """Checks that every device has whole BatchNorm groups of each part of a batch (`micro_batches`).

  Args:
    config: of the run.
    num_devices: devices of all processes.

  Raises:
    UserError: it has not. Results would be right, but devices would repeat the work of others.
  """
  parts, group = config.micro_batches, config.reid.batch_norm_group
  multiple = parts * group * num_devices
  if parts > 1 and config.batch_size % multiple:
    raise UserError(
      f'batch_size: {config.batch_size} is not a multiple of {multiple}, which micro_batches={parts} needs on '
      f'{num_devices} devices with reid.batch_norm_group={group}. Use fewer parts or another batch_size.'
    )
