"""How long things take next to a yardstick, as ratios of medians from one run.

  ranking   CMC and mAP of a whole test set, next to the bare matrix product of queries and gallery, and to a full sort
            per query (numpy), at Market-1501's size.
  input     training batches from each source, next to one thread that reads, decodes and resizes the same images.
  step      an iteration of the teacher and of each phase of DG-Net on random images, next to the same program as
            XLA's defaults compile it (dgnet_jax/training/xla_options.py); on a GPU or TPU both are the same.

The parts of a comparison take turns, so that whatever else the machine does falls on all of them alike.
"""

import argparse
from collections.abc import Callable, Sequence
import os
import pathlib
import statistics
import time
from typing import Any

import numpy as np

from dgnet_jax.errors import UserError
from dgnet_jax.utils.console import exit_on_user_error

EXAMPLE = """
examples:
  python -m tools.benchmark ranking
  python -m tools.benchmark input --root=Market-1501-v15.09.15
  python -m tools.benchmark step --config=configs/synthetic.py
  python -m tools.benchmark ranking --queries=11659 --gallery=82161 --people=3060 --distractors=0 --junk=0
"""
SORTED_QUERIES = 64  # of which a full sort is timed; the time of all is in proportion


def take_turns(parts: dict[str, Callable[[], float | None]], rounds: int) -> dict[str, float]:
  """Median seconds of each part; each runs once beforehand, to compile. A part may return its own seconds."""
  seconds: dict[str, list[float]] = {name: [] for name in parts}
  for turn in range(rounds + 1):
    for name, part in parts.items():
      start = time.perf_counter()
      told = part()
      spent = time.perf_counter() - start if told is None else told
      if turn:
        seconds[name].append(spent)
  return {name: statistics.median(values) for name, values in seconds.items()}


def print_ratios(seconds: dict[str, float], yardstick: str) -> None:
  """A line per part: seconds, and how many times the yardstick's."""
  width = max(map(len, seconds))
  for name, value in seconds.items():
    print(f'  {name:<{width}}  {value:8.3f} s  {value / seconds[yardstick]:6.2f}x')


def ranking(options: argparse.Namespace) -> None:
  """Random embeddings; the gallery has the distractors and junk of Market-1501, six cameras see the others."""
  from dgnet_jax.evaluation.ranking import rank

  draw = np.random.default_rng(0)
  query, gallery = (
    draw.standard_normal((count, options.size), np.float32) for count in (options.queries, options.gallery)
  )
  identity = [draw.integers(1, options.people + 1, count) for count in (options.queries, options.gallery)]
  identity[1][: options.distractors + options.junk] = np.repeat([0, -1], [options.distractors, options.junk])
  camera = [draw.integers(1, 7, count) for count in (options.queries, options.gallery)]
  rows = max(1, 64 * 2**20 // (4 * options.gallery))

  def product() -> None:
    for start in range(0, len(query), rows):
      query[start : start + rows] @ gallery.T

  def ours() -> None:
    rank(query, identity[0], camera[0], gallery, identity[1], camera[1], alpha=0.5)

  def sort() -> float:
    start = time.perf_counter()
    for i in range(min(SORTED_QUERIES, len(query))):
      order = np.argsort(gallery @ query[i])[::-1]
      same = identity[1] == identity[0][i]
      keep = ~(same & (camera[1] == camera[0][i])) & (identity[1] >= 0)
      np.flatnonzero(same[order][keep[order]])
    return (time.perf_counter() - start) * len(query) / min(SORTED_QUERIES, len(query))

  print(f'ranking {options.queries} queries, {options.gallery} gallery images, {options.size} numbers each')
  seconds = take_turns({'matrix product': product, 'rank': ours, 'sort per query': sort}, options.rounds)
  print_ratios(seconds, 'matrix product')


def input_sources(options: argparse.Namespace) -> None:
  """Pair batches of a data set's training images, at the configured size."""
  from dgnet_jax.config.defaults import default_config
  from dgnet_jax.data.images import read_image
  from dgnet_jax.data.registry import read_layout
  from dgnet_jax.data.sources.factory import make_source

  config = default_config()
  train = read_layout(options.root, options.layout).train
  size = config.data.image_size_hw
  config.batch_size = min(config.batch_size, len(train))
  config.data.decode_threads = options.threads
  images = options.batches * config.batch_size * 4  # two streams, each with a positive

  def one_thread() -> None:
    for i in range(images):
      read_image(train.paths[i % len(train)], size)

  parts: dict[str, Callable[[], float | None]] = {'one thread': one_thread}
  for loader in options.loaders.split(','):
    config.data.loader = loader
    batches = make_source(train, config.copy_and_resolve_references()).batches(0)
    parts[loader] = lambda batches=batches: [next(batches) for _ in range(options.batches)] and None
  print(f'{images} images of {size[0]}x{size[1]} from {len(train)} files, {options.threads} decoding threads')
  seconds = take_turns(parts, options.rounds)
  print_ratios(seconds, 'one thread')
  for name, value in seconds.items():
    print(f'  {name:<10}  {images / value:8.0f} images/s')


def training_steps(options: argparse.Namespace) -> None:
  """Compiles every program twice; batches are on the device beforehand."""
  import jax
  import jax.numpy as jnp

  from dgnet_jax.config.loading import load_config
  from dgnet_jax.models.build import make_networks, make_teacher_network
  from dgnet_jax.sharding import batch_sharding, make_mesh, replicated
  from dgnet_jax.training.optimizers import make_optimizers, make_teacher_optimizer
  from dgnet_jax.training.schedules import active_terms, phase_boundaries
  from dgnet_jax.training.state import create_train_state
  from dgnet_jax.training.step import make_train_step
  from dgnet_jax.training.teacher_loop import teacher_folders
  from dgnet_jax.training.teacher_step import create_teacher_state, make_teacher_step
  from dgnet_jax.types import PixelBatch, Teacher

  config = load_config(options.config, {})
  for name, batch in {'batch_size': config.batch_size, 'teacher.batch_size': config.teacher.batch_size}.items():
    if batch % jax.device_count():
      raise UserError(f'{name}: {batch} does not divide among {jax.device_count()} devices')
  mesh, draw = make_mesh(), np.random.default_rng(0)
  networks, teacher_network = (make(config, options.people) for make in (make_networks, make_teacher_network))
  optimizers = make_optimizers(config.optimizer)
  teacher_optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch=100)

  def images(*shape: int) -> Any:
    values = draw.integers(0, 256, (*shape, *config.data.image_size_hw, 3), np.uint8)
    return jax.device_put(values, batch_sharding(mesh))

  def people(*shape: int) -> Any:
    return jax.device_put(draw.integers(0, options.people, shape, np.int32), batch_sharding(mesh))

  def compare(
    name: str, count: int, step_fn: Any, new_state: Callable[[], Any], *inputs: Any, static: tuple[Any, ...] = ()
  ) -> None:
    static_argnums = range(3, 3 + len(static))
    plain = jax.jit(
      step_fn.__wrapped__, static_argnums=static_argnums, donate_argnums=0, out_shardings=replicated(mesh)
    )
    parts: dict[str, Callable[[], float | None]] = {}
    for part, fn in {'as trained': step_fn, 'XLA defaults': plain}.items():
      state = [jax.device_put(new_state(), replicated(mesh))]

      def turn(fn: Any = fn, state: list[Any] = state) -> float:
        start = time.perf_counter()
        for _ in range(options.steps):
          state[0], metrics = fn(state[0], *inputs, *static)
        jax.block_until_ready((state, metrics))
        return (time.perf_counter() - start) / options.steps

      parts[part] = turn
    print(f'{name}, batch {count}')
    seconds = take_turns(parts, options.rounds)
    print_ratios(seconds, 'XLA defaults')
    print(f'  {count / seconds["as trained"]:.1f} examples/s as trained', flush=True)

  height, width = config.data.image_size_hw
  print(f'{options.config}: {height}x{width}, {options.people} people, {jax.device_count()} {jax.default_backend()}')
  batch = config.teacher.batch_size
  compare(
    'teacher',
    batch,
    make_teacher_step(teacher_network, teacher_optimizer, config, mesh),
    lambda: create_teacher_state(teacher_network, teacher_optimizer, 0),
    images(batch),
    people(batch),
  )
  batch, count = config.batch_size, len(teacher_folders(config, pathlib.Path()))
  teachers = [Teacher(*teacher_network.init(jax.random.key(i))) for i in range(count)]
  teachers = jax.device_put(tuple(teachers), replicated(mesh))
  for step in (0, *phase_boundaries(config.ramps, config.num_steps)):
    active = active_terms(config.ramps, step)
    truth = images(batch, 2) if active.teaching and config.teaching.images == 'ground_truth' else None
    compare(
      f'{"DG-Net" if config.joint else "re-id network alone"} from step {step}',
      batch,
      make_train_step(networks, teacher_network, optimizers, config, mesh),
      lambda step=step: create_train_state(networks, optimizers, 0).replace(step=jnp.int32(step)),
      teachers,
      PixelBatch(images(batch, 2), images(batch, 2), people(batch, 2), truth),
      static=(active,),
    )


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point."""
  parser = argparse.ArgumentParser(
    prog='python -m tools.benchmark',
    description=__doc__,
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(dest='command', required=True)
  part = commands.add_parser('ranking', help='CMC and mAP of a test set')
  part.add_argument('--queries', type=int, default=3368)
  part.add_argument('--gallery', type=int, default=19732)
  part.add_argument('--people', type=int, default=750)
  part.add_argument('--distractors', type=int, default=2798)
  part.add_argument('--junk', type=int, default=3819)
  part.add_argument('--size', type=int, default=1024, help='numbers in an embedding')
  part.set_defaults(run=ranking)
  part = commands.add_parser('input', help='training batches')
  part.add_argument('--root', required=True, help='of a data set')
  part.add_argument('--layout', default='', help='of the data set (default: recognised)')
  part.add_argument('--loaders', default='tfdata,threads,memory', help='to compare')
  part.add_argument('--threads', type=int, default=os.cpu_count() or 1, help='that decode')
  part.add_argument('--batches', type=int, default=20, help='in a turn')
  part.set_defaults(run=input_sources)
  part = commands.add_parser('step', help='training iterations')
  part.add_argument('--config', default='configs/synthetic.py', help='file (default: the embedded one)')
  part.add_argument('--people', type=int, default=64, help='that the networks tell apart')
  part.add_argument('--steps', type=int, default=5, help='in a turn')
  part.set_defaults(run=training_steps)
  for command in commands.choices.values():
    command.add_argument('--rounds', type=int, default=5, help='turns that are counted')
  options = parser.parse_args(arguments)
  with exit_on_user_error():
    options.run(options)


if __name__ == '__main__':
  main()
