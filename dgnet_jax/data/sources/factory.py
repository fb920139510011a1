"""Chooses the source of training batches that `data.loader` names."""

import jax

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import Split
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.data.sources.base import Source
from dgnet_jax.data.sources.in_memory import MemorySource
from dgnet_jax.data.sources.tfdata import TfDataSource
from dgnet_jax.data.sources.threaded import ThreadSource


def make_source(split: Split, config: Config) -> Source:
  """The source of training batches that `config.data.loader` names.

  Args:
    split: of the training images.
    config: seed, batch_size, teacher.batch_size and data are read.

  Returns:
    A source of this process's rows. Pair batches have `config.batch_size` rows over all processes, single batches
    `config.teacher.batch_size`.

  Raises:
    UserError: TensorFlow is missing, images are unreadable, or a batch does not divide among the processes.
  """
  rows = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
  sampler = PairSampler(split.classes, config.batch_size, config.seed, **rows)
  single_sampler = SingleSampler(split.classes, config.teacher.batch_size, config.seed, **rows)
  if config.data.loader == 'memory':
    return MemorySource(split, config.data, sampler, single_sampler)
  if config.data.loader == 'threads':
    return ThreadSource(split, config.data, sampler, single_sampler)
  return TfDataSource(split, config.data, sampler, single_sampler)
