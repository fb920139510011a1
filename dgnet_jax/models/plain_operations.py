"""Operations in a form that converters to other formats understand, and those of the platform otherwise."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars

import jax

from dgnet_jax.types import Array

_PLAIN = contextvars.ContextVar('plain', default=False)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
  """Within the context, networks are traced without choices by platform and without padded windows.

  It must not be entered for functions that `jax.jit` has traced before: it keeps what it has traced.
  """
  token = _PLAIN.set(True)
  try:
    yield
  finally:
    _PLAIN.reset(token)


def are_plain() -> bool:
  """Returns True within `plain_operations`."""
  return _PLAIN.get()


def by_platform(*operands: Array, cpu: Callable[..., Array], default: Callable[..., Array]) -> Array:
  """Computes `cpu` where the program runs on a CPU, `default` elsewhere and in plain operations."""
  if are_plain():
    return default(*operands)
  result: Array = jax.lax.platform_dependent(*operands, cpu=cpu, default=default)
  return result
