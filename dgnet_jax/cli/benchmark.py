"""`dgnet benchmark`: speed, as ratios to a reference that runs in turns with it."""

import argparse
import os
from typing import TYPE_CHECKING

from dgnet_jax.cli.arguments import at_least, positive, writable
from dgnet_jax.cli.command import Command, check_no_problems
from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.utils.compilation_cache import disable_compilation_cache
from dgnet_jax.utils.extras import require_serving_libraries

if TYPE_CHECKING:
  pass

DETAILS = """ranking  CMC and mAP of a test set of Market-1501's size, compared with the bare matrix product
         of queries and gallery, and with a full sort per query (NumPy).
gallery  One query: embedding an image, and ranking random galleries for it, compared with the bare
         matrix product (NumPy) and with a full sort. With --stored also reading the galleries from
         disk, and what FAISS finds.
input    Training batches from each data source, compared with one thread that reads, decodes
         and resizes the same images. Only loader device yields batches that are already on the devices.
inference
         Embedding and swapping random images with fresh networks: images per second, on CPU also
         per core, compared with XLA's default options.
serving  Images per second that `dgnet serve` embeds for 1, 4 and 16 clients on this machine, with
         fresh networks, with and without batches of requests that arrive at the same time.
         Needs what `dgnet serve` needs.
step     A step of the teacher and of each phase of DG-Net on random images: time, images read per
         second (four for an example of DG-Net), time to compile, memory, operations of
         convolutions and matrix products and their rate as a share of that of a large matrix
         product, and on CPU XLA's own count of operations and bytes. On CPU it is compared with
         the same program compiled with XLA's default options (dgnet_jax/utils/xla_options.py).
         --against=plain compares with the release's formulation: one network call for each image
         of a step, and every gradient that the release computes
         (dgnet_jax/benchmarks/plain_step.py). --against=CONFIG compares two configs.
run      Trains a run, and prints the memory, open files, threads and time of a step of its process in
         the first and the last quarter of each phase, to show whether they grow. Linux only.
collectives
         What the devices exchange in a step of each phase of DG-Net, from the compiled program:
         number and kind of collectives, arrays and bytes, and where the largest come from. Nothing
         is run, so virtual devices on CPU will do. Other backends combine other arrays into one
         collective, and may add arrays before they exchange them.

All but the last two print medians and their ratios. The alternatives take turns, so that other load on the machine
affects them equally.
"""
EPILOG = r"""examples:
  dgnet benchmark ranking
  dgnet benchmark ranking --queries=11659 --gallery=82161 --people=3060 --distractors=0 --junk=0
  dgnet benchmark gallery --config=market --sizes 100000 1000000 --stored
  dgnet benchmark input --root=Market-1501-v15.09.15
  dgnet benchmark inference --config=market
  dgnet benchmark serving --config=market
  dgnet benchmark step --config=synthetic
  dgnet benchmark step --config=market --config.batch_size=4 --against=plain --steps=1 --rounds=3
  dgnet benchmark step --config=synthetic --against=synthetic_release   # both designs of the generator
  dgnet benchmark step --config=synthetic --input --config.data.root=runs/synthetic/synthetic_data
  dgnet benchmark step --config=synthetic --profile=traces              # tensorboard --logdir=traces
  dgnet benchmark run --config=synthetic --out=runs/resources           # with the run itself
  XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu \
      dgnet benchmark collectives --config=market --config.batch_size=64

`step`, `inference`, `gallery`, `serving`, `run` and `collectives` take --config.FIELD=VALUE for every config field;
with --against=CONFIG, both configs get it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parts = parser.add_subparsers(dest='part', required=True, metavar='PART')
  ranking = parts.add_parser('ranking', help='CMC and mAP of a test set', allow_abbrev=False)
  ranking.add_argument('--queries', type=positive, default=3368, help='query images (default: %(default)s)')
  ranking.add_argument('--gallery', type=positive, default=19732, help='gallery images (default: %(default)s)')
  ranking.add_argument('--people', type=positive, default=750, help='identities (default: %(default)s)')
  ranking.add_argument('--distractors', type=at_least(0), default=2798, help='in the gallery (default: %(default)s)')
  ranking.add_argument('--junk', type=at_least(0), default=3819, help='in the gallery (default: %(default)s)')
  ranking.add_argument('--size', type=positive, default=1024, help='dimensions of an embedding (default: %(default)s)')
  search = parts.add_parser('gallery', help='one query in a large gallery', allow_abbrev=False)
  search.add_argument('--config', default='market', metavar='CONFIG', help='name or path (default: %(default)s)')
  search.add_argument(
    '--sizes',
    type=positive,
    nargs='+',
    default=[100_000, 1_000_000],
    help='entries (default: 100000 1000000, which takes 4 GB of memory)',
  )
  search.add_argument(
    '--stored',
    action='store_true',
    help='also read each gallery from disk, and search it with FAISS if that is installed: 8 GB of disk and 18 GB of '
    'memory for 1000000 entries',
  )
  reading = parts.add_parser('input', help='training batches', allow_abbrev=False)
  reading.add_argument('--root', required=True, help='folder of a data set')
  reading.add_argument('--layout', default='', help='layout of the data set (default: detected)')
  reading.add_argument('--loaders', default='tfdata,threads,memory', help='loaders to compare (default: %(default)s)')
  reading.add_argument('--threads', type=positive, default=os.cpu_count() or 1, help='threads that decode')
  reading.add_argument('--batches', type=positive, default=20, help='batches in a turn (default: %(default)s)')
  inference = parts.add_parser('inference', help='embedding and swapping images', allow_abbrev=False)
  inference.add_argument('--config', default='synthetic', metavar='CONFIG', help='name or path (default: %(default)s)')
  inference.add_argument('--images', type=positive, default=16, help='images in a call (default: %(default)s)')
  inference.add_argument('--people', type=positive, default=64, help='identities (default: %(default)s)')
  serving = parts.add_parser('serving', help='answering several clients over HTTP', allow_abbrev=False)
  serving.add_argument('--config', default='synthetic', metavar='CONFIG', help='name or path (default: %(default)s)')
  serving.add_argument('--requests', type=positive, default=48, help='requests in a turn (default: %(default)s)')
  serving.add_argument('--people', type=positive, default=64, help='identities (default: %(default)s)')
  step = parts.add_parser('step', help='training steps', allow_abbrev=False)
  step.add_argument('--config', default='synthetic', metavar='CONFIG', help='name or path (default: %(default)s)')
  step.add_argument('--against', metavar='plain|CONFIG', help='what to compare with, in place of XLA options')
  step.add_argument('--input', action='store_true', help='also feed DG-Net from the data set (--config.data.root)')
  step.add_argument('--profile', type=writable, metavar='FOLDER', help='write traces; print the ten longest operations')
  step.add_argument('--operations', action='store_true', help='also print which parts of a step the operations are in')
  step.add_argument('--people', type=positive, default=64, help='identities, unless --input (default: %(default)s)')
  step.add_argument('--steps', type=positive, default=5, help='steps in a turn (default: %(default)s)')
  exchange = parts.add_parser('collectives', help='what devices exchange in a training step', allow_abbrev=False)
  exchange.add_argument('--config', default='synthetic', metavar='CONFIG', help='name or path (default: %(default)s)')
  exchange.add_argument('--people', type=positive, default=64, help='identities (default: %(default)s)')
  for part in (ranking, search, reading, inference, serving, step):
    part.add_argument('--rounds', type=positive, default=5, help='turns that count (default: %(default)s)')
  training = parts.add_parser('run', help='what a training run needs', allow_abbrev=False)
  training.add_argument('--config', default='synthetic', metavar='CONFIG', help='name or path (default: %(default)s)')
  training.add_argument(
    '--out', required=True, type=writable, metavar='FOLDER', help='gets the run, a table and a figure'
  )


def run(options: argparse.Namespace) -> None:
  if options.part == 'step':
    _benchmark_step(options)
  elif options.part in ('inference', 'gallery', 'serving', 'run', 'collectives'):
    _benchmark_config(options)
  else:
    check_no_problems(options)
    if options.overrides:
      raise ConfigError([f'{name}: not for {options.part}' for name in options.overrides])
    _benchmark_without_config(options)


def _benchmark_config(options: argparse.Namespace) -> None:
  from dgnet_jax.config.loading import load_config

  if options.part == 'run':
    from dgnet_jax.benchmarks.resources import benchmark_run

    benchmark_run(load_config(options.config, options.overrides, options.problems), options.out)
    return
  # Random images need no data set.
  config = load_config(options.config, {'data.root': os.curdir} | options.overrides, options.problems)
  if options.part == 'collectives':
    from dgnet_jax.benchmarks.collectives import benchmark_collectives

    benchmark_collectives(config, options.people)
    return
  if options.part == 'gallery':
    from dgnet_jax.benchmarks.gallery import benchmark_gallery

    benchmark_gallery(config, sizes=options.sizes, rounds=options.rounds, stored=options.stored)
    return
  if options.part == 'serving':
    require_serving_libraries()
    from dgnet_jax.benchmarks.serving import benchmark_serving

    benchmark_serving(config, requests=options.requests, people=options.people, rounds=options.rounds)
    return
  from dgnet_jax.benchmarks.inference import benchmark_inference

  benchmark_inference(config, images=options.images, people=options.people, rounds=options.rounds)


def _benchmark_without_config(options: argparse.Namespace) -> None:
  if options.part == 'ranking':
    from dgnet_jax.benchmarks.ranking import RankingSize, benchmark_ranking

    size = RankingSize(
      options.queries, options.gallery, options.people, options.distractors, options.junk, options.size
    )
    benchmark_ranking(size, rounds=options.rounds)
    return
  from dgnet_jax.benchmarks.input import benchmark_input

  benchmark_input(
    options.root,
    layout=options.layout,
    loaders=options.loaders.split(','),
    threads=options.threads,
    batches=options.batches,
    rounds=options.rounds,
  )


def _benchmark_step(options: argparse.Namespace) -> None:
  from dgnet_jax.config.loading import load_config

  other = '' if options.against in (None, 'plain') else options.against
  if options.config == other:
    raise UserError(f'--against: {other} is --config itself')
  names = [options.config, *([other] if other else [])]
  overrides = options.overrides if options.input else {'data.root': os.curdir} | options.overrides
  configs = {name: load_config(name, overrides, options.problems) for name in names}
  disable_compilation_cache()  # before JAX is imported: the time to compile is one of the results
  from dgnet_jax.benchmarks.steps import StepOptions, benchmark_steps, compare_configs

  config = configs[options.config]
  if options.input and len(configs) > 1:
    raise UserError('--input: not with --against=CONFIG')
  if options.input and not config.data.root:  # layout synthetic would be rendered into a work folder
    raise UserError('--input: needs the data set, --config.data.root=FOLDER')
  batches, people = None, options.people
  if options.input:
    from dgnet_jax.benchmarks.input import open_batches

    batches, people = open_batches(config)
  step_options = StepOptions(
    people=people,
    steps=options.steps,
    rounds=options.rounds,
    plain=options.against == 'plain',
    batches=batches,
    profile=options.profile,
    operations=options.operations,
  )
  if len(configs) > 1:
    compare_configs(configs, step_options)
    return
  print(options.config)
  benchmark_steps(config, step_options)


COMMAND = Command(
  name='benchmark',
  summary='measure speed, as ratios to a reference',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
  fields='all',
)
