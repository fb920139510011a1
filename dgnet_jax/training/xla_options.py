"""XLA compiler options for training steps, where the defaults are slow."""

import functools
import os

import jax

# By default XLA's CPU backend runs convolutions with YNNPACK, which is slow at those that compute a kernel's gradient
# (large maps, no padding). With these options YNNPACK gets only sums, and Eigen the convolutions and matrix products:
# those of YNNPACK on several threads differed from run to run in the last digits, which Muon's iterations amplify.
CPU_OPTIONS = {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_REDUCE'}


@functools.cache
def compiler_options() -> dict[str, str]:
  """Returns the `compiler_options` of `jax.jit` for a training step on this machine.

  Empty if $XLA_FLAGS sets one of them, because `jax.jit` would override the user's choice. A later version of XLA may
  not have an option; then all defaults apply, which is slower but equally correct.
  """
  if jax.default_backend() != 'cpu' or any(name in os.environ.get('XLA_FLAGS', '') for name in CPU_OPTIONS):
    return {}
  try:
    jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
  except jax.errors.JaxRuntimeError:
    return {}
  return CPU_OPTIONS
