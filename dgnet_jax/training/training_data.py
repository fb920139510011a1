"""The data set of a training job, with everything that can be wrong with it found before the job starts."""

import pathlib

import jax

from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import open_dataset, verify_dataset
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.sharding import check_model_devices
from dgnet_jax.training.batch_sizes import check_batch_sizes, check_identities, check_parts
from dgnet_jax.training.data_record import check_unchanged, describe_training_data, write_record
from dgnet_jax.training.run_record import record_training_data
from dgnet_jax.training.teacher_store import is_trained


def open_training_data(config: Config, workdir: str | pathlib.Path, *, teacher_only: bool = False) -> DatasetIndex:
  """Opens the data set, compares it with that of earlier starts, and checks the batch sizes.

  Only then all images are verified, which can take minutes, and the record of the data is written.

  Args:
    config: of the run.
    workdir: of the run.
    teacher_only: only the teacher will be trained.

  Raises:
    UserError: the data set is missing or damaged, it is not that of earlier starts, or a batch size or `model_devices`
      does not fit data or devices.
  """
  workdir = pathlib.Path(workdir)
  index = open_dataset(config.data, workdir)
  data = describe_training_data(index, config.data)
  check_unchanged(data, config.data, workdir)
  sizes = {} if teacher_only else {'batch_size': config.batch_size}
  if not config.teacher.checkpoint and not is_trained(workdir / 'teacher'):
    sizes['teacher.batch_size'] = config.teacher.batch_size
  check_model_devices(config.model_devices, jax.device_count())
  check_batch_sizes(sizes, num_images=len(index.train), num_devices=jax.device_count())
  check_identities(config, num_identities=index.num_identities, fields=sizes)
  if not teacher_only:
    check_parts(config, num_devices=jax.device_count())
  verify_dataset(index, config.data, workdir)
  if jax.process_index() == 0:
    write_record(data, workdir)
    record_training_data(data, workdir)
  return index
