"""Time and cost of training steps, compared with XLA's default options, the plain formulation or other configs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import itertools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp

from dgnet_jax.benchmarks.costs import Cost, peak_flops
from dgnet_jax.benchmarks.programs import (
  Program,
  compiled,
  phase_program,
  phase_starts,
  plain_phase,
  teacher_program,
  turn_of,
  with_default_options,
)
from dgnet_jax.benchmarks.timing import median_seconds
from dgnet_jax.benchmarks.traces import expensive_operations
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.sharding import make_mesh
from dgnet_jax.utils.xla_options import CONVOLUTIONS, accepted_options

Batches = Callable[[], contextlib.AbstractContextManager[Iterator[Any]]]
NUM_OPERATIONS = 10  # most expensive ones to print
HEADINGS = ('step', 'images/s', 'compile', 'memory', 'TFLOP', 'of peak', 'XLA: TFLOP', 'XLA: GB')


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """How steps are measured.

  Attributes:
    people: identities that the networks distinguish.
    steps: number of steps in each turn.
    rounds: number of turns that count.
    plain: compare with the plain formulation (`dgnet_jax.benchmarks.plain_step`) instead of XLA's default options.
    batches: opens the batches of DG-Net on the devices; they are read while the steps run, as a further alternative.
      None measures no input.
    profile: gets a folder with a trace of `steps` steps for each program; None writes none.
    operations: print where the operations of each program come from.
  """

  people: int = 64
  steps: int = 5
  rounds: int = 5
  plain: bool = False
  batches: Batches | None = None
  profile: pathlib.Path | None = None
  operations: bool = False


@dataclasses.dataclass(frozen=True)
class _StepTime:
  """A measured step.

  Attributes:
    program: the teacher, or the phase of DG-Net.
    alternative: what was run, as it is printed.
    seconds: median time of a step.
    images_per_second: images read per second.
    cost: what the program costs by XLA's analysis.
    share_of_peak: operations of convolutions and matrix products per second, as a share of what a large matrix product
      reaches.
  """

  program: str
  alternative: str
  seconds: float
  images_per_second: float
  cost: Cost
  share_of_peak: float


def benchmark_steps(config: Config, options: StepOptions) -> None:
  """Prints time and cost of a step of the teacher, and of each phase of DG-Net.

  Args:
    config: the run's config.
    options: how to measure.

  Raises:
    UserError: a batch does not divide among the devices, or the plain formulation is asked for where there is none.
  """
  _check_batches(config)
  if options.plain:
    _check_plain(config)
  mesh = make_mesh(model_devices=config.model_devices)
  peak = peak_flops(jnp.dtype(config.compute_dtype))
  print(f'{heading(config, options.people)}; {peak / 1e12:.3g} TFLOP/s in a matrix product', flush=True)
  phases = (phase_program(config, options.people, mesh, start) for start in phase_starts(config))
  for program in phases if options.plain else itertools.chain([teacher_program(config, options.people, mesh)], phases):
    alternatives = {'as trained': program}
    if options.plain:
      alternatives['plain'] = plain_phase(program, config, options.people)
    elif accepted_options(CONVOLUTIONS):
      alternatives['XLA defaults'] = with_default_options(program)
    _measure(alternatives, options, dict.fromkeys(alternatives, peak))


def compare_configs(configs: Mapping[str, Config], options: StepOptions) -> None:
  """Prints time and cost of a step of every phase of DG-Net in several configs; all of them take turns.

  Args:
    configs: by the name to print. Ratios are to the first phase of the last one.
    options: how to measure; `plain` and `batches` are not read.

  Raises:
    UserError: a batch does not divide among the devices, or they cannot split the classifiers as configured.
  """
  for config in configs.values():
    _check_batches(config)
  peaks = {dtype: peak_flops(jnp.dtype(dtype)) for dtype in {config.compute_dtype for config in configs.values()}}
  alternatives: dict[str, Program] = {}
  peak_of: dict[str, float] = {}
  for name, config in configs.items():
    peak = peaks[config.compute_dtype]
    print(f'{name}: {heading(config, options.people)}; {peak / 1e12:.3g} TFLOP/s in a matrix product', flush=True)
    mesh = make_mesh(model_devices=config.model_devices)
    programs = [phase_program(config, options.people, mesh, start) for start in phase_starts(config)]
    alternatives |= {f'{name}, {program.name}': program for program in programs}
    peak_of |= {f'{name}, {program.name}': peak for program in programs}
    reference = f'{name}, {programs[0].name}'
  _measure(alternatives, dataclasses.replace(options, batches=None), peak_of, reference)


def _measure(
  alternatives: Mapping[str, Program],
  options: StepOptions,
  peaks: Mapping[str, float],
  reference: str = '',
) -> None:
  """Compiles alternatives, runs them in turns and prints a table; the ratio is to `reference`, or to the last one."""
  executables, costs, turns = {}, {}, {}
  for name, program in alternatives.items():
    executables[name], costs[name] = compiled(program)
    turns[name] = turn_of(program, executables[name], steps=options.steps)
  reference = reference or list(alternatives)[-1]
  first = next(iter(alternatives))
  with contextlib.ExitStack() as stack:
    if options.batches is not None and alternatives[first].constants:
      batches = stack.enter_context(options.batches())
      turns['with input'] = turn_of(alternatives[first], executables[first], steps=options.steps, batches=batches)
      alternatives, costs = {**alternatives, 'with input': alternatives[first]}, {**costs, 'with input': costs[first]}
    seconds = median_seconds(turns, options.rounds)
  results = []
  for name, program in alternatives.items():
    share = costs[name].product_flops / seconds[name] / peaks.get(name, peaks[first])
    images = program.num_images / seconds[name]
    results.append(_StepTime(program.name, name, seconds[name], images, costs[name], share))
  _print_table(results, seconds[reference])
  if options.operations:
    for name in executables:
      _print_operations(f'{alternatives[name].name}, {name}', costs[name])
  if options.profile is not None:
    for name, executable in executables.items():
      _profile(f'{alternatives[name].name}, {name}', executable, turns[name], options.profile)


def _print_table(results: Sequence[_StepTime], reference: float) -> None:
  names = {result.program for result in results}
  title = names.pop() if len(names) == 1 else ''
  width = max(len(title), *(len(result.alternative) + 2 for result in results))
  print(f'{title:<{width}}' + ''.join(f'{name:>{len(name) + 2 if len(name) > 8 else 10}}' for name in HEADINGS))
  for result in results:
    cost = result.cost
    cells = [
      f'{result.seconds:.3f} s',
      f'{result.images_per_second:.1f}',
      f'{cost.compile_seconds:.1f} s',
      f'{cost.peak_bytes / 1e9:.2f} GB',
      f'{cost.product_flops / 1e12:.4g}',
      f'{result.share_of_peak:.1%}',
      '-' if cost.xla_flops is None else f'{cost.xla_flops / 1e12:.4g}',
      '-' if cost.xla_bytes is None else f'{cost.xla_bytes / 1e9:.4g}',
    ]
    columns = zip(cells, HEADINGS, strict=True)
    row = ''.join(f'{cell:>{len(name) + 2 if len(name) > 8 else 10}}' for cell, name in columns)
    print(f'{"  " + result.alternative:<{width}}{row}  {result.seconds / reference:6.2f}x', flush=True)


def _print_operations(name: str, cost: Cost) -> None:
  """Prints the operations of each part of a step and network, largest first."""
  flops, total = cost.flops_by_origin, cost.product_flops
  rows: dict[tuple[str, str], list[float]] = {}
  for origin, count in flops.items():
    rows.setdefault((origin.part, origin.network), [0.0, 0.0])[origin.backward] += count
  print(f'{name}: convolutions and matrix products, as traced')
  print(f'  {"part":<20}{"network":<20}{"TFLOP":>8}{"forward":>10}{"backward":>10}{"share":>8}')
  for (part, network), (forward, backward) in sorted(rows.items(), key=lambda row: -sum(row[1])):
    cells = [f'{count / 1e12:.3f}' for count in (forward + backward, forward, backward)]
    print(f'  {part:<20}{network:<20}{cells[0]:>8}{cells[1]:>10}{cells[2]:>10}{(forward + backward) / total:>8.1%}')


def _profile(name: str, executable: Any, turn: Callable[[], float], folder: pathlib.Path) -> None:
  """Writes a trace of a turn, and prints the operations that take the most time in it."""
  folder /= re.sub(r'[^\w.=+-]+', '_', name)  # JAX names traces by the second
  total, operations = expensive_operations(executable, turn, folder)
  print(f'{name}: the {NUM_OPERATIONS} operations with the most time, of {total:.3f} s in all; trace in {folder}')
  for seconds, operation, source in operations[:NUM_OPERATIONS]:
    print(f'  {seconds / total:6.1%}  {operation:<32}  {source}', flush=True)


def _check_batches(config: Config) -> None:
  for field, batch_size in {'batch_size': config.batch_size, 'teacher.batch_size': config.teacher.batch_size}.items():
    if batch_size % jax.device_count():
      raise UserError(f'{field}: {batch_size} does not divide among {jax.device_count()} devices')


def _check_plain(config: Config) -> None:
  needed = {
    'generator.design': (config.generator.design, 'adain'),
    'reid.style': (config.reid.style, 'AB'),
    'joint': (config.joint, True),
    'micro_batches': (config.micro_batches, 1),
    'weights.triplet': (config.weights.triplet, 0),
    'weights.circle': (config.weights.circle, 0),
    'reid.label_smoothing': (config.reid.label_smoothing, 0),
  }
  for field, (value, plain) in needed.items():
    if value != plain:
      raise UserError(f'--against=plain: the plain formulation is of {field}={plain}, not of {value}')


def heading(config: Config, people: int) -> str:
  """Describes what is measured: sizes, precision and devices."""
  height, width = config.data.image_size_hw
  parts = f' in {config.micro_batches} parts' if config.micro_batches > 1 else ''
  return (
    f'design {config.generator.design}, {height}x{width}, batch {config.batch_size}{parts}, {config.compute_dtype}, '
    f'{people} identities, {jax.device_count()} {jax.devices()[0].device_kind}'
  )
