"""Initial variables of a Linen module."""

from collections.abc import Callable
import functools
from typing import Any, cast

import flax.linen as nn
import jax

from dgnet_jax.types import Array
from dgnet_jax.utils.xla_options import INITIALIZATION, accepted_options


def initial_variables(module: nn.Module, key: Array, *inputs: Any, **options: Any) -> dict[str, Any]:
  """Returns `module.init(key, *inputs, **options)`, compiled: XLA removes the forward pass, which nothing needs.

  Args:
    module: the network.
    key: random key.
    inputs: arrays and pytrees of arrays; only their shapes count.
    options: what the module's `__call__` takes besides arrays.

  Returns:
    The collections of variables, such as {'params', 'batch_stats'}.
  """
  init: Callable[..., Any] = functools.partial(module.init, **options)
  if isinstance(key, jax.core.Tracer):  # inside another function's trace, which has compiler options of its own
    return cast(dict[str, Any], init(key, *inputs))
  return cast(dict[str, Any], jax.jit(init, compiler_options=accepted_options(INITIALIZATION))(key, *inputs))
