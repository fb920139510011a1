"""XLA compiler options, where the defaults are slow."""

from collections.abc import Callable, Mapping
import functools
import os
from typing import Any

import jax

# By default XLA's CPU backend runs convolutions with YNNPACK, which is slow at those that compute a kernel's gradient
# (large maps, no padding). With these options YNNPACK gets sums, with a large product that they directly follow (20 of
# the ResNet at 256x128, none in `configs/synthetic.py`), and Eigen the other convolutions and matrix products:
# those of YNNPACK on several threads differed from run to run in the last digits, which Muon's iterations amplify.
# Without gradients the options help as well (docs/performance.md).
CONVOLUTIONS = {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_REDUCE'}

# Initial weights are computed once, so compiling their program is all that takes time. At level 1 of 3 it takes a third
# of it. Some last digits differ from those of level 3.
INITIALIZATION = {'xla_backend_optimization_level': '1'}

_accepted: dict[str, bool] = {}


def accepted_options(options: Mapping[str, str]) -> dict[str, str]:
  """Returns `options` as the `compiler_options` of `jax.jit` on this machine.

  Args:
    options: `CONVOLUTIONS` or `INITIALIZATION`.

  Returns:
    The options on CPU, where they were measured. Empty elsewhere, and if $XLA_FLAGS sets one of them, because `jax.jit`
    would override the user's choice. A later version of XLA may not have an option; then all defaults apply, which is
    slower but equally correct.
  """
  if jax.default_backend() != 'cpu' or any(name in os.environ.get('XLA_FLAGS', '') for name in options):
    return {}
  key = str(sorted(options.items()))
  if key not in _accepted:
    try:
      jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
      _accepted[key] = True
    except jax.errors.JaxRuntimeError:
      _accepted[key] = False
  return dict(options) if _accepted[key] else {}


def jit_network(function: Callable[..., Any], *, static_argnums: tuple[int, ...] = ()) -> Callable[..., Any]:
  """Like `jax.jit` with the options `CONVOLUTIONS`, which are looked up at the first call: the backend starts then.

  Args:
    function: applies networks; must not be called while something else is traced.
    static_argnums: as in `jax.jit`.
  """

  @functools.cache
  def jitted() -> Callable[..., Any]:
    options = accepted_options(CONVOLUTIONS)
    return jax.jit(function, static_argnums=static_argnums, compiler_options=options)

  @functools.wraps(function)
  def call(*args: Any, **kwargs: Any) -> Any:
    return jitted()(*args, **kwargs)

  return call
