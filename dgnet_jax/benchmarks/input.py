"""Time of training batches from each data source, compared with a single thread that does the same work."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools

import jax

from dgnet_jax.benchmarks.timing import median_seconds, print_ratios
from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.images import read_image
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.data.registry import read_layout
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.sharding import make_mesh

IMAGES_PER_EXAMPLE = 4  # two streams, each with a positive


def _take(batches: Iterator[object], count: int) -> None:
  for _ in range(count):
    # Those of loader device are computed asynchronously.
    jax.block_until_ready(next(batches))  # type: ignore[no-untyped-call]


def benchmark_input(root: str, *, layout: str, loaders: Sequence[str], threads: int, batches: int, rounds: int) -> None:
  """Prints the times for pair batches at the default batch and image size.

  Args:
    root: folder of a data set.
    layout: layout of the data set; '' detects it.
    loaders: values of data.loader to compare.
    threads: number of threads that decode images.
    batches: number of batches to read in each turn.
    rounds: number of turns that count.
  """
  train = read_layout(root, layout).train
  config = Config()
  size_hw, batch_size = config.data.image_size_hw, min(config.batch_size, len(train))
  num_images = batches * batch_size * IMAGES_PER_EXAMPLE

  def read_in_one_thread() -> None:
    for i in range(num_images):
      read_image(train.paths[i % len(train)], size_hw)

  def read_with(loader: str) -> Callable[[], None]:
    data = dataclasses.replace(config.data, loader=loader, decode_threads=threads)
    source = make_source(train, dataclasses.replace(config, batch_size=batch_size, data=data))
    return functools.partial(_take, source.batches(0), batches)

  alternatives = {'one thread': read_in_one_thread} | {loader: read_with(loader) for loader in loaders}
  print(f'{num_images} images of {size_hw[0]}x{size_hw[1]} from {len(train)} files, {threads} decoding threads')
  seconds = median_seconds(alternatives, rounds)
  print_ratios(seconds, 'one thread')
  for name, value in seconds.items():
    print(f'  {name:<10}  {num_images / value:8.0f} images/s')


def open_batches(config: Config) -> tuple[Callable[[], contextlib.AbstractContextManager[Iterator[object]]], int]:
  """Opens a data set for `benchmark_steps`.

  Args:
    config: its section `data` names the data set with `root`; it, the batch size and `model_devices` are read.

  Returns:
    A function that starts reading batches of DG-Net, on the devices, when its result is entered; and the number of
    identities.

  Raises:
    UserError: the data set is missing or cannot be read.
  """
  index = open_dataset(config.data, config.data.root)
  source, mesh = make_source(index.train, config), make_mesh(model_devices=config.model_devices)
  return lambda: contextlib.closing(device_batches(source.batches(0), mesh)), index.num_identities
