"""Traces of compiled programs, for the usual viewers, and the operations that take the most time."""

import collections
from collections.abc import Callable
import pathlib
import re
from typing import Any

import jax

# An instruction of XLA's text form, with the part of the model that it comes from.
_INSTRUCTION = re.compile(r'^ *(?:ROOT )?%?([\w.-]+) = .*metadata=\{.*?op_name="([^"]*)"', re.MULTILINE)


def expensive_operations(
  executable: jax.stages.Compiled, run: Callable[[], Any], folder: pathlib.Path
) -> tuple[float, list[tuple[float, str, str]]]:
  """Traces a call, and sums the time of each operation over it.

  Args:
    executable: the program that `run` runs.
    run: runs the program.
    folder: gets the trace, which TensorBoard, XProf and Perfetto read.

  Returns:
    Seconds of all operations; and, longest first, seconds of each, its name in the compiled program, and where in the
    model it comes from ('' if XLA does not say). Operations that run at the same time count each.
  """
  before = _traces(folder)
  with jax.profiler.trace(folder):
    run()
  seconds: collections.Counter[str] = collections.Counter()
  for path in _traces(folder) - before:
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
      for line in plane.lines:
        for event in line.events:
          # On devices, what has no operation (kernels that run as one graph) counts under its own name.
          operation = dict(event.stats).get('hlo_op', event.name if plane.name.startswith('/device:') else None)
          if operation is not None:
            seconds[str(operation)] += event.duration_ns * 1e-9
  sources = {name: readable(source) for name, source in _INSTRUCTION.findall(executable.as_text() or '')}
  total: float = sum(seconds.values())
  return total, [(time, name, sources.get(name, '')) for name, time in seconds.most_common()]


def _traces(folder: pathlib.Path) -> set[pathlib.Path]:
  return set(folder.rglob('*.xplane.pb'))


def readable(source: str) -> str:
  """Drops the names of transformations and the jitted function from the name that JAX gives to an operation."""
  return re.sub(r'^jit\([^)]*\)/', '', source)
