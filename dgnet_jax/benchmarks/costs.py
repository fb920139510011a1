"""What a program costs, and what the device could do at best."""

import dataclasses
import math
import time
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval
import jax.numpy as jnp

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
    product_flops: floating-point operations of the convolutions and matrix products of a call (`product_flops`).
    xla_flops: all operations of a call as XLA counts them in the compiled program; None except on CPU, because
      elsewhere XLA does not see into the libraries that compute convolutions.
    xla_bytes: bytes that the operations of a call read and write, as XLA counts them: what stays in a cache counts
      every time. None as above.
  """

  compile_seconds: float
  peak_bytes: int
  product_flops: float
  xla_flops: float | None
  xla_bytes: float | None


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
    product_flops=product_flops(traced.jaxpr.jaxpr) / jax.device_count(),
    xla_flops=analysis.get('flops'),
    xla_bytes=analysis.get('bytes accessed'),
  )


def product_flops(jaxpr: core.Jaxpr) -> float:
  """Counts the floating-point operations of the convolutions and matrix products that the outputs depend on.

  A multiplication and an addition count two. Products with padding count, those with the zeros that a dilation puts
  into an image do not. Of the branches of a conditional the most expensive one counts, of a loop without a known number
  of iterations one iteration.

  Args:
    jaxpr: the traced program.
  """
  needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _flops(needed)


def _flops(jaxpr: core.Jaxpr) -> float:
  return sum(map(_flops_of_equation, jaxpr.eqns))


def _flops_of_equation(equation: Any) -> float:
  name: str = equation.primitive.name
  params: dict[str, Any] = equation.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return float(2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted))
  if name == 'conv_general_dilated':
    kernel, spec = equation.invars[1].aval.shape, params['dimension_numbers'].rhs_spec
    products = math.prod(kernel[axis] for axis in spec[1:])  # of each output: input channels and window
    return float(2 * math.prod(equation.outvars[0].aval.shape) * products / math.prod(params['lhs_dilation']))
  if name == 'cond':
    return max(_flops(branch.jaxpr) for branch in params['branches'])
  inner = [x for value in params.values() for x in (value if isinstance(value, tuple | list) else [value])]
  jaxprs = [x.jaxpr if isinstance(x, core.ClosedJaxpr) else x for x in inner]
  return int(params.get('length', 1)) * sum(_flops(x) for x in jaxprs if isinstance(x, core.Jaxpr))


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
