"""What a program costs, and what the device could do at best."""

from collections.abc import Mapping
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp

from dgnet_jax.benchmarks.operations import Origin, flops_by_origin
from dgnet_jax.types import Array

PEAK_SECONDS = 1.0  # time that is spent on measuring a device's peak
# Sides of the matrices of that measurement, by backend: the smallest that reach the peak.
PEAK_SIDES = {'cpu': 2048}
OTHER_PEAK_SIDE = 8192


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a program costs on one of its devices.

  Attributes:
    compile_seconds: time to trace, lower and compile it.
    peak_bytes: largest memory of the device in use at once, arguments included, by XLA's analysis.
    flops_by_origin: floating-point operations of the convolutions and matrix products of a call, by where they come
      from (`flops_by_origin`).
    xla_flops: all operations of a call as XLA counts them in the compiled program; None except on CPU, because
      elsewhere XLA does not see into the libraries that compute convolutions.
    xla_bytes: bytes that the operations of a call read and write, as XLA counts them: what stays in a cache counts
      every time. None as above.
  """

  compile_seconds: float
  peak_bytes: int
  flops_by_origin: Mapping[Origin, float]
  xla_flops: float | None
  xla_bytes: float | None

  @property
  def product_flops(self) -> float:
    """Floating-point operations of the convolutions and matrix products of a call."""
    return sum(self.flops_by_origin.values())


def cost_of(traced: jax.stages.Traced, executable: jax.stages.Compiled, compile_seconds: float) -> Cost:
  """Reads the cost of a program.

  Args:
    traced: the program before its compilation, for all devices.
    executable: the compiled program.
    compile_seconds: time that tracing and compilation took.
  """
  memory: Any = executable.memory_analysis()
  peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
  analysis: Any = (executable.cost_analysis() or {}) if jax.default_backend() == 'cpu' else {}
  return Cost(
    compile_seconds=compile_seconds,
    peak_bytes=int(peak - memory.alias_size_in_bytes),
    flops_by_origin={k: v / jax.device_count() for k, v in flops_by_origin(traced.jaxpr.jaxpr).items()},
    xla_flops=analysis.get('flops'),
    xla_bytes=analysis.get('bytes accessed'),
  )


def peak_flops(dtype: jnp.dtype) -> float:
  """Measures the operations per second of a device in a large matrix product.

  Args:
    dtype: of the matrices; the sums are at least float32.

  Returns:
    Operations per second of the fastest product.
  """
  side = PEAK_SIDES.get(jax.default_backend(), OTHER_PEAK_SIDE)
  # Random numbers: a GPU's clock depends on the bits that flip, and products of zeros are faster.
  a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
  multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.promote_types(dtype, jnp.float32)))
  jax.block_until_ready(multiply(a, b))  # type: ignore[no-untyped-call]
  seconds = [_seconds(multiply, a, b)]
  while sum(seconds) < PEAK_SECONDS:
    seconds.append(_seconds(multiply, a, b))
  return 2 * side**3 / min(seconds)


def _seconds(function: Any, *arguments: Array) -> float:
  start = time.perf_counter()
  jax.block_until_ready(function(*arguments))  # type: ignore[no-untyped-call]
  return time.perf_counter() - start
