"""Time of embedding and of swapping images, compared with XLA's default options."""

from collections.abc import Callable
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.benchmarks.timing import Alternative, median_seconds
from dgnet_jax.config.schema import Config
from dgnet_jax.inference import functions
from dgnet_jax.models.build import make_networks
from dgnet_jax.types import Array, Params
from dgnet_jax.utils.xla_options import CONVOLUTIONS, accepted_options, jit_network


def benchmark_inference(config: Config, *, images: int, people: int, rounds: int) -> None:
  """Prints the time for random images, with fresh networks.

  Args:
    config: the networks and the size of images.
    images: number of images in a call.
    people: identities that the re-id network distinguishes.
    rounds: number of calls that count.
  """
  networks = make_networks(config, people)
  generator_key, reid_key, image_key = jax.random.split(jax.random.key(0), 3)
  generator, (params, batch_stats) = networks.init_generator(generator_key), networks.init_reid(reid_key)
  image = jax.random.uniform(image_key, (images, *config.data.image_size_hw, 3), minval=-1, maxval=1)

  height, width = config.data.image_size_hw
  print(
    f'design {config.generator.design}, {height}x{width}, {images} images, {config.compute_dtype}, '
    f'{jax.devices()[0].device_kind}'
  )

  def swap(generator: Params, params: Params, batch_stats: Params, image: Array) -> Array:
    return functions.swap(
      networks, generator, params, batch_stats, structure_from=image, appearance_from=jnp.flip(image, axis=0)
    )

  _measure('embed', functools.partial(functions.embedding, networks), (params, batch_stats, image), rounds)
  _measure('swap', swap, (generator, params, batch_stats, image), rounds)


def _measure(name: str, function: Callable[..., Array], arguments: tuple[Any, ...], rounds: int) -> None:
  """Prints a line for each alternative; the last argument is the images."""
  compiled: dict[str, Callable[..., Any]] = {'as used': jit_network(function)}
  if accepted_options(CONVOLUTIONS):
    compiled['XLA defaults'] = jax.jit(function)
  alternatives: dict[str, Alternative] = {
    label: functools.partial(_fetch, alternative, arguments) for label, alternative in compiled.items()
  }
  seconds = median_seconds(alternatives, rounds)
  for label, value in seconds.items():
    rate = len(arguments[-1]) / value
    per_core = f'{rate / _num_cores():8.2f} per core' if jax.default_backend() == 'cpu' else ''
    ratio = value / list(seconds.values())[-1]
    print(f'  {name + ", " + label:<22}{value:8.3f} s{rate:9.2f} images/s{per_core}{ratio:7.2f}x', flush=True)


def _num_cores() -> int:
  """Returns the number of cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _fetch(function: Callable[..., Array], arguments: tuple[Any, ...]) -> None:
  np.asarray(function(*arguments))
