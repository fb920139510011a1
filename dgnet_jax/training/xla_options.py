"""What XLA is asked for beyond its defaults, where those are slow."""

import functools
import os

import jax

# By default XLA's CPU backend hands convolutions to YNNPACK, which is slow at those that give a kernel's gradient: over
# large maps, without padding. Only sums and matrix products go there, the convolutions to Eigen.
CPU_OPTIONS = {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE'}


@functools.cache
def compiler_options() -> dict[str, str]:
  """`compiler_options` of `jax.jit` for a training step on this machine.

  Empty where $XLA_FLAGS names one of them: jit's would win over the user's. A later XLA may not know an option: then
  everything stays at the defaults, which is slower and no less right.
  """
  if jax.default_backend() != 'cpu' or any(name in os.environ.get('XLA_FLAGS', '') for name in CPU_OPTIONS):
    return {}
  try:
    jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
  except jax.errors.JaxRuntimeError:
    return {}
  return CPU_OPTIONS
