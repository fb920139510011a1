"""Keeps the memory that a process has freed, instead of returning it to the system after every training step.

On CPU the temporary arrays of a step are host memory, several gigabytes with the release's networks. By default glibc
maps each large array anew and the kernel fills it with zeros, which takes a tenth of a step.
"""

import ctypes
import importlib.util
import os
import sys

# Parameters of mallopt(3). glibc reads the number of arenas when the first thread needs one, so before JAX's backends.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_SETTINGS = {
  _MMAP_MAX: 0,  # the heap for all arrays, and no mapping for a large one
  _TRIM_THRESHOLD: -1,  # keep the heap's free end, however large
  _ARENA_MAX: 1,  # threads share that heap, since their own would map large arrays
}
_ACCELERATORS = ('jax_plugins', 'libtpu')  # what the extras for CUDA and TPU install
# A user who sets one of these decides alone.
USER_SETTINGS = ('GLIBC_TUNABLES', 'MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_', 'MALLOC_ARENA_MAX', 'LD_PRELOAD')


def keep_host_memory() -> bool:
  """Makes this process keep what it frees, if JAX, whose backends must not have started yet, will run on the CPU.

  Returns:
    True if it does; False with accelerators, where threads that decode images would wait for each other in the one
    heap, without glibc, and if the user has set one of `USER_SETTINGS`.
  """
  if not (_runs_on_cpu() and sys.platform == 'linux') or any(name in os.environ for name in USER_SETTINGS):
    return False
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  return mallopt is not None and all(mallopt(parameter, value) for parameter, value in _SETTINGS.items())


def _runs_on_cpu() -> bool:
  """Returns whether JAX is told to use the CPU, or can use nothing else."""
  platforms = os.environ.get('JAX_PLATFORMS', '')
  if platforms:
    return platforms == 'cpu'
  return not any(importlib.util.find_spec(name) for name in _ACCELERATORS)
