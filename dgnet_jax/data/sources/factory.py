"""Creates the source of training batches that `data.loader` names."""

from collections.abc import Callable, Mapping
import functools
import logging

import jax

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import Split
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.data.sources.base import Source
from dgnet_jax.data.sources.in_memory import MemorySource
from dgnet_jax.data.sources.on_device import DeviceSource
from dgnet_jax.data.sources.tfdata import TfDataSource, UnsupportedFormatError, import_tensorflow
from dgnet_jax.data.sources.threaded import ThreadSource
from dgnet_jax.utils.extras import install_command

logger = logging.getLogger(__name__)

SOURCES: Mapping[str, Callable[[Split, DataConfig, PairSampler, SingleSampler], Source]] = {
  'tfdata': TfDataSource,
  'threads': ThreadSource,
  'memory': MemorySource,
  'device': DeviceSource,
}


@functools.cache  # one warning, although a run creates several sources
def _warn_without_tensorflow(problem: str) -> None:
  logger.warning(
    f"TensorFlow {problem}, so the loader 'threads' replaces 'tfdata', with the same batches. "
    f'To use tfdata: {install_command("tfdata")}'
  )


def _usable(loader: str) -> str:
  """Returns `loader`, or threads in place of tfdata if TensorFlow cannot be imported."""
  if loader == 'tfdata':
    try:
      import_tensorflow()
    except ModuleNotFoundError:
      _warn_without_tensorflow('is not installed')
      return 'threads'
    except ImportError as error:
      _warn_without_tensorflow(f'cannot be imported ({error})')
      return 'threads'
  return loader


def make_source(split: Split, config: Config) -> Source:
  """Creates the source of training batches that `config.data.loader` names.

  Where TensorFlow is not installed or cannot decode the images, threads replaces tfdata with a warning.

  Args:
    split: the training images.
    config: seed, batch_size, teacher.batch_size, teacher.images_per_identity and data are read.

  Returns:
    A source of this process's rows. Over all processes a pair batch has `config.batch_size` rows and a single batch
    `config.teacher.batch_size`.

  Raises:
    UserError: images are unreadable, or a batch size is not divisible by the number of processes.
  """
  processes = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
  cameras = split.camera if config.data.positives == 'other_camera' else None
  sampler = PairSampler(
    split.classes,
    config.batch_size,
    config.seed,
    **processes,
    cameras=cameras,
    images_per_identity=config.data.images_per_identity,
  )
  single_sampler = SingleSampler(
    split.classes,
    config.teacher.batch_size,
    config.seed,
    **processes,
    images_per_identity=config.teacher.images_per_identity,
  )
  try:
    return SOURCES[_usable(config.data.loader)](split, config.data, sampler, single_sampler)
  except UnsupportedFormatError as problem:
    logger.warning(f"{problem}, so the loader 'threads' replaces 'tfdata', with the same batches")
    return ThreadSource(split, config.data, sampler, single_sampler)
