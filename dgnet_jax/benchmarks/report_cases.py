"""The cases of the report on an accelerator: what is measured, and how one of them measures itself."""

from collections.abc import Mapping
import dataclasses
import pathlib
import statistics
import sys
import time
from typing import Any, TextIO

from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import with_fields

READY = 'READY'  # what the process of a case prints when it waits for its turn
TURNS = 5
NUM_OPERATIONS = 30  # in the table of the longest ones
PEOPLE = 751  # identities of Market-1501
# jax_default_matmul_precision and compute_dtype of each precision.
PRECISIONS = {'float32': ('highest', 'float32'), 'tf32': ('tensorfloat32', 'float32'), 'bfloat16': (None, 'bfloat16')}
# What configs/market_correspondence.py sets.
CORRESPONDENCE = {'generator.design': 'correspondence', 'ramps.cycle.initial': 5.0, 'ramps.cycle.maximum': 5.0}
# Small networks and images, for both designs of the generator.
TINY = {
  'data.image_size_hw': (32, 16),
  'structure_encoder.width': 2,
  'structure_encoder.num_res_blocks': 1,
  'structure_encoder.dilations': (1, 1, 2),
  'decoder.num_res_blocks': 1,
  'decoder.mlp_width': 8,
  'correspondence.attention_stride': 2,
  'correspondence.shape_width': 4,
  'correspondence.descriptor_size': 4,
  'correspondence.refinement_width': 6,
  'discriminator.width': 2,
  'discriminator.num_scales': 1,
  'discriminator.num_res_blocks': 1,
  'reid.stage_sizes': (1, 1),
  'reid.width': 4,
  'reid.head_width': 8,
  'reid.num_parts': 2,
  'reid.input_scale': 1,
  'teacher.stage_sizes': (1, 1),
  'teacher.width': 4,
  'teacher.head_width': 8,
}


@dataclasses.dataclass(frozen=True)
class Case:
  """What one process measures.

  Attributes:
    precision: one of `PRECISIONS`.
    batch_size: examples in a step; each has four images.
    design: of the generator.
    warmup: the first phase of a run, instead of the last.
    plain: the plain formulation.
  """

  precision: str
  batch_size: int
  design: str = 'adain'
  warmup: bool = False
  plain: bool = False

  @property
  def name(self) -> str:
    """Name in the report."""
    parts = [self.design, 'first phase' if self.warmup else 'last phase', self.precision, f'batch {self.batch_size}']
    return ', '.join([*parts, *(['plain'] if self.plain else [])])


# Most important first: cases that are not compiled in time are left out.
CASES = (
  Case('bfloat16', 32),
  Case('tf32', 32),
  Case('bfloat16', 32, plain=True),
  Case('tf32', 32, plain=True),
  Case('bfloat16', 32, 'correspondence', warmup=True),
  Case('bfloat16', 64),
  Case('bfloat16', 8),
  Case('float32', 32),
  Case('bfloat16', 32, warmup=True),
  Case('tf32', 32, 'correspondence', warmup=True),
  Case('bfloat16', 16),
  Case('tf32', 64),
  Case('tf32', 32, warmup=True),
  Case('tf32', 8),
)


def case_config(case: Case, *, tiny: bool = False) -> Config:
  """Returns the config of a case: the networks of `configs/market.py` or `configs/market_correspondence.py`.

  Args:
    case: the case.
    tiny: small networks and images, to try the report on a CPU.
  """
  fields = {
    'batch_size': case.batch_size,
    'compute_dtype': PRECISIONS[case.precision][1],
    'num_steps': 1_000_000,
    'generator.design': case.design,
  }
  if case.design == 'correspondence':
    fields |= CORRESPONDENCE
  return with_fields(Config(), fields | TINY if tiny else fields)


def measure_case(case: Case, *, tiny: bool, profile: pathlib.Path | None, commands: TextIO) -> dict[str, Any]:
  """Compiles a case, waits for its turn and measures it.

  Args:
    case: the case.
    tiny: as in `case_config`.
    profile: folder of a trace of some steps; None writes none.
    commands: a line is read from it before the device is used for measuring.

  Returns:
    For JSON: seconds of a step, images_per_second, product_flops, peak_flops (measured with a matrix product in the
    same precision), share_of_peak, xla_peak_bytes, bytes_in_use (the most at once; None if the device does not say),
    compile_seconds, device, jax and phase; and operations, the longest ones: share of time, name, place in the model.
  """
  import jax
  import jax.numpy as jnp

  from dgnet_jax.benchmarks.costs import peak_flops
  from dgnet_jax.benchmarks.programs import compiled, phase_program, phase_starts, plain_phase, turn_of
  from dgnet_jax.benchmarks.traces import expensive_operations
  from dgnet_jax.sharding import make_mesh

  start = time.monotonic()

  def progress(stage: str) -> None:
    print(f'{time.monotonic() - start:.0f} s: {stage}', file=sys.stderr, flush=True)

  progress('initial weights of the teacher')
  precision, dtype = PRECISIONS[case.precision]
  jax.config.update('jax_default_matmul_precision', precision)  # type: ignore[no-untyped-call]
  config, mesh = case_config(case, tiny=tiny), make_mesh()
  starts = phase_starts(config)
  program = phase_program(config, PEOPLE, mesh, starts[0] if case.warmup else starts[-1])
  if case.plain:
    program = plain_phase(program, config, PEOPLE)
  executable, cost = compiled(program, progress)
  progress('initial weights of the networks')
  turn = turn_of(program, executable, steps=1)
  progress('waiting for its turn')
  print(READY, flush=True)
  commands.readline()

  peak = peak_flops(jnp.dtype(dtype))
  turn()
  seconds = statistics.median(turn() for _ in range(TURNS))
  memory: Mapping[str, int] = jax.local_devices()[0].memory_stats() or {}
  operations: list[Any] = []
  if profile is not None:
    total, longest = expensive_operations(executable, turn, profile)
    operations = [(share / total, name, source) for share, name, source in longest[:NUM_OPERATIONS]]
  return {
    'device': jax.devices()[0].device_kind,
    'jax': jax.__version__,
    'phase': program.name,
    'seconds': seconds,
    'images_per_second': program.num_images / seconds,
    'product_flops': cost.product_flops,
    'peak_flops': peak,
    'share_of_peak': cost.product_flops / seconds / peak,
    'xla_peak_bytes': cost.peak_bytes,
    'bytes_in_use': memory.get('peak_bytes_in_use'),
    'compile_seconds': cost.compile_seconds,
    'operations': operations,
  }
