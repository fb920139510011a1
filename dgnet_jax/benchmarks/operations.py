"""Counts the operations of a traced program, and where in the model they come from."""

import collections
from collections.abc import Mapping
import math
import re
from typing import Any, NamedTuple

from jax.extend import core
from jax.interpreters import partial_eval

_TRANSFORMATIONS = ('jvp', 'transpose', 'vmap', 'jit', 'cond', 'checkpoint')


class Origin(NamedTuple):
  """Where in a step operations come from.

  Attributes:
    part: the outermost `jax.named_scope` of the training step, or ''.
    network: class of the Linen module that the step calls, or ''.
    backward: True in a gradient's backward pass.
  """

  part: str
  network: str
  backward: bool


def flops_by_origin(jaxpr: core.Jaxpr) -> Mapping[Origin, int]:
  """Counts the floating-point operations of the convolutions and matrix products that the outputs depend on.

  A multiplication and an addition count two. Products with padding count, those with the zeros that a dilation puts
  into an image do not. Of the branches of a conditional the most expensive one counts, of a loop without a known number
  of iterations one iteration. What is computed twice counts twice, also where the compiler will compute it once.

  Args:
    jaxpr: the traced program.
  """
  needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  counts: collections.Counter[Origin] = collections.Counter()
  for scope, flops in _count(needed, '').items():
    counts[_origin(scope)] += flops
  return counts


def _origin(scope: str) -> Origin:
  """Reads a path of scopes: part, network and its layers, any of them in the names of transformations."""
  names = [name for name in re.findall(r'\w+', scope) if name not in _TRANSFORMATIONS]
  networks = [name for name in names if name[0].isupper()]
  part = names[0] if names and names[0] not in networks else ''
  return Origin(part, networks[0] if networks else '', 'transpose(' in scope)


def _count(jaxpr: core.Jaxpr, scope: str) -> collections.Counter[str]:
  """Counts the operations of each path of scopes."""
  counts: collections.Counter[str] = collections.Counter()
  for equation in jaxpr.eqns:
    path = f'{scope}/{equation.source_info.name_stack}'
    flops = _flops(equation)
    if flops is not None:
      counts[path] += flops
    else:
      counts += _of_inner(equation, path)
  return counts


def _of_inner(equation: Any, scope: str) -> collections.Counter[str]:
  """Counts the operations of the functions that an equation calls."""
  params: dict[str, Any] = equation.params
  if equation.primitive.name == 'cond':
    branches = [_count(branch.jaxpr, scope) for branch in params['branches']]
    return max(branches, key=lambda counts: sum(counts.values()))
  inner = [x for value in params.values() for x in (value if isinstance(value, tuple | list) else [value])]
  jaxprs = [x.jaxpr if isinstance(x, core.ClosedJaxpr) else x for x in inner]
  counts: collections.Counter[str] = collections.Counter()
  for jaxpr in jaxprs:
    if isinstance(jaxpr, core.Jaxpr):
      counts += _count(jaxpr, scope)
  return collections.Counter({path: int(params.get('length', 1)) * flops for path, flops in counts.items()})


def _flops(equation: Any) -> int | None:
  """Operations of a convolution or matrix product; None for anything else."""
  params: dict[str, Any] = equation.params
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return int(2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted))
  if equation.primitive.name == 'conv_general_dilated':
    kernel, spec = equation.invars[1].aval.shape, params['dimension_numbers'].rhs_spec
    products = math.prod(kernel[axis] for axis in spec[1:])  # of each output: input channels and window
    return int(2 * math.prod(equation.outvars[0].aval.shape) * products // math.prod(params['lhs_dilation']))
  return None
