"""What the devices exchange in a training step: the collectives of the compiled program, and where they come from."""

from collections.abc import Sequence
import math
import re
from typing import Any, NamedTuple

import jax

from dgnet_jax.benchmarks.programs import compiled, phase_program, phase_starts
from dgnet_jax.benchmarks.steps import heading
from dgnet_jax.benchmarks.traces import readable
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.sharding import make_mesh
from dgnet_jax.types import TrainState

NUM_LARGEST = 5  # arrays to print
KINDS = (
  *('all-reduce', 'all-gather', 'all-to-all', 'collective-permute', 'collective-broadcast'),
  *('reduce-scatter', 'ragged-all-to-all'),
)
# An instruction of XLA's text form: its name, the type of its result, what it does, its operands, and the rest.
_INSTRUCTION = re.compile(r'^ *(?:ROOT )?%([\w.-]+) = (.+?) ([a-z][\w-]*)\(([^)]*)\)(.*)$', re.MULTILINE)
_SOURCE = re.compile(r'op_name="([^"]*)"')
_NORM_LAYER = re.compile(r'(?:/|_)norm(?:_\d+)?/')


class Exchange(NamedTuple):
  """An array that devices exchange.

  Attributes:
    kind: one of `KINDS`.
    collective: name of the instruction in the program. XLA combines the arrays of several exchanges in one.
    type: element type and shape of what each device gives, as XLA prints it.
    num_bytes: size of what each device gives.
    source: where in the model the array is computed ('' if XLA does not say).
  """

  kind: str
  collective: str
  type: str
  num_bytes: int
  source: str

  @property
  def purpose(self) -> str:
    """What the array is, by its source.

    In the backward pass of a norm layer XLA sums the gradients of scale and bias, and, where a BatchNorm group is
    larger than what a device has of it, the terms that go through the statistics.
    """
    backward, norm = 'transpose(' in self.source, _NORM_LAYER.search(self.source) is not None
    if norm:
      return 'norm layers, backward' if backward else 'BatchNorm statistics'
    return 'gradients' if backward else 'losses and others'


def exchanges(text: str) -> list[Exchange]:
  """Lists the arrays that the devices exchange when they run a program; in a loop, those of one iteration.

  Args:
    text: of the compiled program, from `jax.stages.Compiled.as_text`.
  """
  types, sources, collectives = {}, {}, []
  for name, result, operation, operands, rest in _INSTRUCTION.findall(text):
    types[name] = result.split('{')[0]  # without the layout; operands of collectives are arrays
    source = _SOURCE.search(rest)
    sources[name] = source[1] if source else ''
    kind = operation.removesuffix('-start')
    if kind in KINDS:
      collectives.append((kind, name, re.findall(r'%([\w.-]+)', operands)))
  return [
    Exchange(kind, name, types[operand], _num_bytes(types[operand]), readable(sources[operand] or sources[name]))
    for kind, name, operands in collectives
    for operand in operands
  ]


def _num_bytes(array_type: str) -> int:
  """Size of an array of a type like f32[3,4]."""
  element, shape = array_type.rstrip(']').split('[')
  bits = re.search(r'\d+', element)
  return math.prod(int(size) for size in shape.split(',') if size) * (int(bits[0]) if bits else 8) // 8


def benchmark_collectives(config: Config, people: int) -> None:
  """Compiles a step of each phase of DG-Net and prints what the devices exchange; nothing is run.

  Args:
    config: the run's config.
    people: identities that the networks distinguish.

  Raises:
    UserError: there is one device, a batch does not divide among the devices, they cannot split the classifiers as
      configured, or a batch is computed in parts.
  """
  devices = jax.device_count()
  if devices == 1:
    raise UserError(
      'one device exchanges nothing; to compile for N virtual devices on CPU, set '
      'XLA_FLAGS=--xla_force_host_platform_device_count=N and JAX_PLATFORMS=cpu'
    )
  if config.batch_size % devices:
    raise UserError(f'batch_size: {config.batch_size} does not divide among {devices} devices')
  if config.micro_batches > 1:
    raise UserError(f'micro_batches: {config.micro_batches} parts are a loop, of which one iteration counts; use 1')
  mesh = make_mesh(model_devices=config.model_devices)
  print(heading(config, people), flush=True)
  for start in phase_starts(config):
    program = phase_program(config, people, mesh, start)
    executable, cost = compiled(program)
    state: TrainState = jax.eval_shape(program.new_state)
    trained = [network.params for network in (state.generator, state.discriminator, state.reid)]
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trained))
    print(
      f'{program.name}: {cost.product_flops / 1e12:.4g} TFLOP on each device; {parameters / 1e6:.4g} MB of parameters'
    )
    memory: Any = executable.memory_analysis()
    print(
      f'  on each device {memory.argument_size_in_bytes / 1e6:.5g} MB of arguments (state, teachers, images) and '
      f'{memory.temp_size_in_bytes / 1e6:.5g} MB of temporary arrays'
    )
    _print_exchanges(exchanges(executable.as_text() or ''))


def _print_exchanges(found: Sequence[Exchange]) -> None:
  """Prints a line for each kind and purpose, their sum, and the largest arrays."""
  rows: dict[tuple[str, str], list[Exchange]] = {}
  for exchange in found:
    rows.setdefault((exchange.kind, exchange.purpose), []).append(exchange)
  ordered = sorted(rows.items(), key=lambda row: -sum(exchange.num_bytes for exchange in row[1]))
  print(f'  {"kind":<20}{"what":<24}{"collectives":>12}{"arrays":>8}{"MB":>10}')
  for (kind, purpose), some in [*ordered, (('all', ''), found)]:
    collectives, size = len({exchange.collective for exchange in some}), sum(exchange.num_bytes for exchange in some)
    print(f'  {kind:<20}{purpose:<24}{collectives:>12}{len(some):>8}{size / 1e6:>10.3f}')
  print('  largest arrays:')
  for exchange in sorted(found, key=lambda exchange: -exchange.num_bytes)[:NUM_LARGEST]:
    print(f'  {exchange.num_bytes / 1e6:>10.3f} MB  {exchange.kind}  {exchange.type}  {exchange.source}', flush=True)
