"""Keeps compiled programs on disk, so that a command does not compile what an earlier one has compiled.

JAX reads its settings from the environment when it is imported, so this must come first. Nothing here imports JAX.
"""

import hashlib
import os
import pathlib
import platform

import filelock

from dgnet_jax.utils.user_cache import user_cache

MAX_BYTES = 2 * 2**30  # then the programs that have not been used for longest are deleted
MIN_COMPILE_SECONDS = 0.3  # programs that compile faster are not kept
# A user who sets one of these decides alone.
USER_SETTINGS = ('JAX_COMPILATION_CACHE_DIR', 'JAX_ENABLE_COMPILATION_CACHE')
_LOCK = '.lockfile'  # JAX's own
_LOCK_SECONDS = 10
_PROGRAM, _USED = (
  '-cache',
  '-atime',
)  # endings of JAX's files: a program, and when it was used, which is written after it


def cache_folder() -> pathlib.Path:
  """Returns the folder of compiled programs: `$XDG_CACHE_HOME/dgnet_jax`, and in it one for each kind of processor.

  A program that was compiled for one processor may crash another, and both may share the home folder.
  """
  return user_cache() / f'{platform.machine() or "unknown"}-{_processor()}'


def _processor() -> str:
  """Returns a short fingerprint of the processor's instruction set."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().split('\n')
  except OSError:
    lines = []
  features = next((line for line in lines if line.startswith(('flags', 'Features'))), platform.processor())
  return hashlib.sha256(features.encode()).hexdigest()[:12]


def use_compilation_cache() -> None:
  """Makes JAX, which must not have been imported yet, keep compiled programs in `cache_folder()`.

  Does nothing if the user has set one of `USER_SETTINGS`, or if the folder cannot be written to: then every command
  compiles what it needs.
  """
  if any(name in os.environ for name in USER_SETTINGS):
    return
  try:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(folder)
  except (OSError, RuntimeError):  # RuntimeError: there is no home folder
    return
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder)
  os.environ.setdefault('JAX_COMPILATION_CACHE_MAX_SIZE', str(MAX_BYTES))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', str(MIN_COMPILE_SECONDS))


def disable_compilation_cache() -> None:
  """Makes JAX, which must not have been imported yet, compile everything again, whatever the user has set."""
  os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'


def _remove_unfinished(folder: pathlib.Path) -> None:
  """Removes programs that a killed process was writing; JAX would neither use nor replace them."""
  try:
    lock = filelock.FileLock(folder / _LOCK).acquire(timeout=_LOCK_SECONDS)
  except filelock.Timeout:
    return  # others are using the folder; the next command will do it
  with lock:
    for program in folder.glob(f'*{_PROGRAM}'):
      if not program.with_name(program.name.removesuffix(_PROGRAM) + _USED).exists():
        program.unlink(missing_ok=True)
